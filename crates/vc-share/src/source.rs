//! What is of the host and is shown or copied to a guest, opened without a way to lead elsewhere: whoever can
//! write to a source, such as another guest that shares it, can swap a name for a link between two looks.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::mem::discriminant;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags, openat, readlinkat, statx};
use rustix::io::Errno;
use vc_types::HostPath;

use crate::mounts::{open_beneath, open_source, reopen};

/// Why something of a source cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A link is in the path of the source itself.
    #[error("{path:?} leads over a link; expected is a path without any")]
    Led {
        /// The source.
        path: PathBuf,
    },
    /// The system refused it.
    #[error("cannot read {path:?}")]
    Read {
        /// What.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else than when it was found, such as a link in the place of a file.
    #[error("{path:?} was changed while it was read")]
    Changed {
        /// What.
        path: PathBuf,
    },
    /// There is too much.
    #[error(
        "{path:?} has more than {most} files, too many to copy; share a file system with the guest instead"
    )]
    TooMany {
        /// The source.
        path: PathBuf,
        /// How many there may be.
        most: usize,
    },
}

/// A file or directory of the host, with all that is below it.
///
/// It is opened once; from then on names are looked up below it by the kernel, which follows no link
/// (openat2(2)), and what is opened is what was listed. Calls may block as long as the file system does.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    top: OwnedFd,
}

/// Something of a source, as it was found. Two that are equal are the same file, unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceEntry {
    /// Where, from the source; empty for the source itself.
    pub below: PathBuf,
    /// What it is.
    pub kind: SourceKind,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its device, by major and minor number, and its inode.
    identity: (u32, u32, u64),
    /// When it was changed last, in seconds and nanoseconds.
    modified: (i64, u32),
}

/// What something of a source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: PathBuf,
    },
    /// A socket, a FIFO or a device.
    Special,
}

impl Source {
    /// Opens a source by a path without links.
    ///
    /// # Errors
    /// [`SourceError::Led`] when there is a link in the path; [`SourceError::Read`] when it cannot be opened.
    pub fn open(path: &HostPath) -> Result<Self, SourceError> {
        let path = path.as_path().to_path_buf();
        match open_source(&path) {
            Ok(top) => Ok(Self { path, top }),
            Err(Errno::LOOP) => Err(SourceError::Led { path }),
            Err(errno) => Err(SourceError::Read { path, source: errno.into() }),
        }
    }

    /// Everything, the source itself first, directories before what is in them, by name. What comes and goes
    /// meanwhile may be missing.
    ///
    /// # Errors
    /// [`SourceError`]; [`SourceError::TooMany`] when there is more than `most`.
    pub fn list(&self, most: usize) -> Result<Vec<SourceEntry>, SourceError> {
        let top = SourceEntry::of(&self.top, PathBuf::new());
        let mut found = vec![top.map_err(|errno| self.failed(Path::new(""), errno))?];
        let mut next = 0;
        while let Some(entry) = found.get(next).cloned() {
            next += 1;
            if entry.kind == SourceKind::Directory {
                let first = found.len();
                self.add_children(&entry, &mut found, most)?;
                found[first..].sort_by(|one, other| one.below.cmp(&other.below));
            }
        }
        Ok(found)
    }

    /// Opens a regular file for reading, if it is still the one that was listed.
    ///
    /// # Errors
    /// [`SourceError::Changed`] when it is not, or a directory above it has become a link.
    pub fn file(&self, entry: &SourceEntry) -> Result<File, SourceError> {
        let found = self.find(entry)?;
        if !matches!(entry.kind, SourceKind::File { .. }) {
            return Err(SourceError::Changed { path: self.path_of(entry) });
        }
        // By descriptor it is the very file that was looked at: neither a FIFO, which would wait, nor a device.
        let opened = reopen(&found, OFlags::RDONLY | OFlags::NONBLOCK);
        opened.map(File::from).map_err(|errno| self.failed(&entry.below, errno))
    }

    /// The path of an entry, for messages.
    pub fn path_of(&self, entry: &SourceEntry) -> PathBuf {
        self.whole(&entry.below)
    }

    fn whole(&self, below: &Path) -> PathBuf {
        // Joining nothing would add a slash.
        if below.as_os_str().is_empty() { self.path.clone() } else { self.path.join(below) }
    }

    fn failed(&self, below: &Path, errno: Errno) -> SourceError {
        SourceError::Read { path: self.whole(below), source: errno.into() }
    }

    /// What an entry is by now, opened without being used.
    fn find(&self, entry: &SourceEntry) -> Result<OwnedFd, SourceError> {
        let found = if entry.below.as_os_str().is_empty() {
            self.top.try_clone().map_err(|source| SourceError::Read { path: self.path.clone(), source })?
        } else {
            match open_beneath(&self.top, &entry.below) {
                Ok(found) => found,
                // It is gone, or something above it is no directory any more.
                Err(Errno::LOOP | Errno::XDEV | Errno::NOTDIR | Errno::NOENT) => {
                    return Err(SourceError::Changed { path: self.path_of(entry) });
                }
                Err(errno) => return Err(self.failed(&entry.below, errno)),
            }
        };
        let now = SourceEntry::of(&found, entry.below.clone());
        let now = now.map_err(|errno| self.failed(&entry.below, errno))?;
        let is_same = now.identity == entry.identity && discriminant(&now.kind) == discriminant(&entry.kind);
        if is_same { Ok(found) } else { Err(SourceError::Changed { path: self.path_of(entry) }) }
    }

    /// Adds what is in a directory, in no order.
    fn add_children(
        &self,
        directory: &SourceEntry,
        found: &mut Vec<SourceEntry>,
        most: usize,
    ) -> Result<(), SourceError> {
        let failed = |errno| self.failed(&directory.below, errno);
        let opened = self.find(directory)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let names = openat(&opened, ".", flags, Mode::empty()).and_then(Dir::new).map_err(failed)?;
        for name in names {
            let name = name.map_err(failed)?;
            let name = name.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if found.len() >= most {
                return Err(SourceError::TooMany { path: self.path.clone(), most });
            }
            let below = directory.below.join(OsString::from_vec(name.to_bytes().to_vec()));
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let child = openat(&opened, name, flags, Mode::empty());
            match child.and_then(|child| SourceEntry::of(&child, below.clone())) {
                Ok(entry) => found.push(entry),
                // Gone since its name was read.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.failed(&below, errno)),
            }
        }
        Ok(())
    }
}

impl SourceEntry {
    fn of(file: impl AsFd, below: PathBuf) -> rustix::io::Result<Self> {
        let stat = statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        let kind = match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::Directory => SourceKind::Directory,
            FileType::RegularFile => SourceKind::File { size: stat.stx_size },
            FileType::Symlink => {
                let target = readlinkat(&file, "", Vec::new())?;
                SourceKind::Link { target: OsString::from_vec(target.into_bytes()).into() }
            }
            _ => SourceKind::Special,
        };
        Ok(Self {
            below,
            kind,
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            identity: (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino),
            modified: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        })
    }
}
