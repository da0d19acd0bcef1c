//! Whether a file is an EROFS image, and what is wrong with it if not.

use std::fs::{File, FileType};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::superblock::{Superblock, SuperblockError};
use crate::FileId;

/// An open file that is a whole EROFS image on its own.
///
/// Whoever uses the image should use [`file`](Self::file), or compare [`id`](Self::id) after opening it
/// anew: a name can come to mean another file at any time.
#[derive(Debug)]
pub struct ErofsImage {
    path: PathBuf,
    file: File,
    id: FileId,
    length: u64,
    superblock: Superblock,
}

/// Why a file cannot serve as an EROFS layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It cannot be opened.
    #[error("cannot open {path:?}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is a directory, a device or the like.
    #[error("{path:?} is a {kind}, not an image file")]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It ends before a superblock would.
    #[error("{path:?} has only {length} bytes, too few for an EROFS image")]
    TooShort {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
    },
    /// It is something else.
    #[error("{path:?} is not an EROFS image{}; make one with mkfs.erofs", looks_like.map(|kind| format!(" but looks like {kind}")).unwrap_or_default())]
    NotErofs {
        /// The file.
        path: PathBuf,
        /// What its first bytes are usual for.
        looks_like: Option<&'static str>,
        /// What is wrong with the superblock.
        source: SuperblockError,
    },
    /// The superblock is damaged.
    #[error("{path:?} is a damaged EROFS image: the checksum of its superblock is wrong")]
    Checksum {
        /// The file.
        path: PathBuf,
    },
    /// The file ends before the image does.
    #[error("{path:?} is truncated: the EROFS image in it has {wanted} bytes, the file only {length}")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// How long the image is, in bytes.
        wanted: u64,
        /// How long the file is, in bytes.
        length: u64,
    },
    /// It has features that this crate does not know, so what it reads of it may be wrong.
    #[error("{path:?} uses EROFS features that are not known here: {features:#x}")]
    UnknownFeatures {
        /// The file.
        path: PathBuf,
        /// The unknown bits of [`Superblock::feature_incompat`].
        features: u32,
    },
    /// Its data is in other files, but not in as many as were named.
    #[error("{path:?} has its data in {extra_devices} more files, and {named} are named")]
    DeviceCount {
        /// The file.
        path: PathBuf,
        /// How many files the others are.
        extra_devices: u16,
        /// How many were named.
        named: usize,
    },
    /// Some of its data is in other files, which nothing in it names.
    #[error(
        "{path:?} is a multi-device image: its data is in {extra_devices} more files, which it does not name"
    )]
    MultiDevice {
        /// The file.
        path: PathBuf,
        /// How many files the others are.
        extra_devices: u16,
    },
}

impl ErofsImage {
    /// Opens `path` for reading and checks that it is an image: a plain file with a superblock whose
    /// checksum is right, all there, with no data elsewhere.
    ///
    /// # Errors
    /// [`ImageError`] tells what is wrong with the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ImageError> {
        Self::open_with_devices(path, 0)
    }

    /// The same for an image whose data is in other files: as many as its mount is told by `device=`, in the order
    /// of the image's device table (Linux, `Documentation/filesystems/erofs.rst`). Those are not looked at.
    ///
    /// # Errors
    /// [`ImageError`] tells what is wrong with the file, such as another number of devices.
    pub fn open_with_devices(path: impl AsRef<Path>, devices: usize) -> Result<Self, ImageError> {
        let path = path.as_ref().to_path_buf();
        // Without O_NONBLOCK, opening a FIFO would wait for a writer.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        let file = file.map_err(|source| ImageError::Open { path: path.clone(), source })?;
        let metadata = file.metadata().map_err(|source| ImageError::Read { path: path.clone(), source })?;
        if let Some(kind) = other_kind(metadata.file_type()) {
            return Err(ImageError::NotAFile { path, kind });
        }
        let length = metadata.len();
        let superblock = read_superblock(&path, &file, length)?;
        let wanted = superblock.size();
        if wanted > length {
            return Err(ImageError::Truncated { path, wanted, length });
        }
        check_checksum(&path, &file, &superblock)?;
        let features = superblock.feature_incompat & !Superblock::KNOWN_INCOMPAT;
        if features != 0 {
            return Err(ImageError::UnknownFeatures { path, features });
        }
        let extra_devices = superblock.extra_devices;
        if usize::from(extra_devices) != devices {
            return Err(match devices {
                0 => ImageError::MultiDevice { path, extra_devices },
                named => ImageError::DeviceCount { path, extra_devices, named },
            });
        }
        Ok(Self { id: FileId::from(&metadata), path, file, length, superblock })
    }

    /// The name it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file, open for reading.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The file, open for reading.
    pub fn into_file(self) -> File {
        self.file
    }

    /// The identity of the file.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// The length of the file in bytes: not less than the image's, and more when something is appended,
    /// such as a dm-verity hash tree.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What the image says of itself.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }
}

fn read_superblock(path: &Path, file: &File, length: u64) -> Result<Superblock, ImageError> {
    let path = || path.to_path_buf();
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::UnexpectedEof => ImageError::TooShort { path: path(), length },
        _ => ImageError::Read { path: path(), source },
    };
    let mut start = [0; Superblock::OFFSET + Superblock::LENGTH];
    let read = read_start(file, &mut start).map_err(failed)?;
    let looks_like = || looks_like(&start[..read]);
    let superblock = match start[..read].get(Superblock::OFFSET..) {
        // Something else may well be shorter than an image.
        Some([]) | None if looks_like().is_none() => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
        bytes => Superblock::parse(bytes.unwrap_or_default()).map_err(|source| ImageError::NotErofs {
            path: path(),
            looks_like: looks_like(),
            source,
        })?,
    };
    Ok(superblock)
}

fn check_checksum(path: &Path, file: &File, superblock: &Superblock) -> Result<(), ImageError> {
    let Some(length) = superblock.checksummed_length() else { return Ok(()) };
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, Superblock::OFFSET as u64)
        .map_err(|source| ImageError::Read { path: path.into(), source })?;
    if superblock.has_checksum_of(&bytes) { Ok(()) } else { Err(ImageError::Checksum { path: path.into() }) }
}

/// Fills `start` as far as the file goes.
fn read_start(file: &File, start: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < start.len() {
        match file.read_at(&mut start[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// What a file with these first bytes usually is.
fn looks_like(start: &[u8]) -> Option<&'static str> {
    const KNOWN: [(usize, &[u8], &str); 8] = [
        (0, b"\x1f\x8b", "a gzip file; unpack it first"),
        (0, b"\x28\xb5\x2f\xfd", "a zstd file; unpack it first"),
        (0, b"\xfd7zXZ\0", "an xz file; unpack it first"),
        (0, b"hsqs", "a squashfs image"),
        (0, b"QFI\xfb", "a qcow2 image; convert it to raw first"),
        (0, b"\x7fELF", "a program"),
        (257, b"ustar", "a tar archive"),
        (1024 + 56, b"\x53\xef", "an ext2, ext3 or ext4 image"),
    ];
    let found = KNOWN.iter().find(|(at, magic, _)| start.get(*at..).is_some_and(|b| b.starts_with(magic)));
    found.map(|(_, _, kind)| *kind)
}

/// What a path is if not a plain file.
fn other_kind(file_type: FileType) -> Option<&'static str> {
    match file_type {
        plain if plain.is_file() => None,
        directory if directory.is_dir() => Some("directory"),
        device if device.is_block_device() => Some("block device"),
        device if device.is_char_device() => Some("character device"),
        fifo if fifo.is_fifo() => Some("FIFO"),
        _ => Some("special file"),
    }
}
