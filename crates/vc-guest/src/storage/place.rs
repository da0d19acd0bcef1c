//! An entry of a directory that containers may write to, changed without following a link of theirs.

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, renameat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a link is called until it is in its place.
const NEW_LINK: &str = ".vc-new-link";

#[derive(Debug)]
pub(super) struct Place {
    directory: OwnedFd,
    name: OsString,
}

impl Place {
    /// The entry `below` the directory or file `top`, which itself has a name that no container can change; `top` when
    /// `below` is empty.
    ///
    /// # Errors
    /// `ELOOP` when there is a link on the way.
    pub(super) fn of(top: &Path, below: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let nameless = || io::Error::from(ErrorKind::InvalidInput);
        let (above, top) = top.parent().zip(top.file_name()).ok_or_else(nameless)?;
        let directory = open(above, flags, Mode::empty())?;
        let Some((parent, name)) = below.parent().zip(below.file_name()) else {
            return Ok(Self { directory, name: top.to_owned() });
        };
        let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH;
        let how = OpenHow::new().flags(flags).resolve(resolve);
        let directory = openat2(&directory, &Path::new(top).join(parent), how)?;
        Ok(Self { directory, name: name.to_owned() })
    }

    /// Makes or renews a directory or a file as `entry` is, whose bytes are in the file `from`. It is written in place, so
    /// that whoever watches it is told.
    pub(super) fn copy(&self, entry: &Metadata, from: &Path) -> io::Result<()> {
        let copy = if entry.is_dir() {
            self.directory()?
        } else if entry.is_file() {
            self.file(from)?
        } else {
            // Sockets, pipes and devices have no contents to copy.
            return Ok(());
        };
        // The owner first: changing it takes away the bits for other users' rights (chown(2)).
        fchown(&copy, Some(Uid::from_raw(entry.uid())), Some(Gid::from_raw(entry.gid())))?;
        Ok(fchmod(&copy, Mode::from_bits_truncate(entry.mode()))?)
    }

    fn directory(&self) -> io::Result<File> {
        match mkdirat(&self.directory, self.name.as_os_str(), Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => self.open(OFlag::O_RDONLY | OFlag::O_DIRECTORY),
            Err(errno) => Err(errno.into()),
        }
    }

    fn file(&self, from: &Path) -> io::Result<File> {
        let mut source = File::open(from)?;
        // What is no file may make one wait for somebody at the other end.
        let mut copy = self.open(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NONBLOCK)?;
        if !copy.metadata()?.is_file() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        io::copy(&mut source, &mut copy)?;
        Ok(copy)
    }

    fn open(&self, flags: OFlag) -> io::Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&self.directory, self.name.as_os_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?.into())
    }

    /// Puts a link there. Renamed over the old one, so that there is a link at every moment.
    pub(super) fn put_link(&self, leads_to: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
        // One that was left when a rename failed.
        remove(&self.path(NEW_LINK.as_ref()))?;
        symlinkat(leads_to, &self.directory, NEW_LINK)?;
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        fchownat(&self.directory, NEW_LINK, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Ok(renameat(&self.directory, NEW_LINK, &self.directory, self.name.as_os_str())?)
    }

    /// Removes whatever is there, with all below it.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove(&self.path(&self.name))
    }

    fn path(&self, name: &std::ffi::OsStr) -> PathBuf {
        Path::new("/proc/self/fd").join(self.directory.as_raw_fd().to_string()).join(name)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(entry) if entry.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
