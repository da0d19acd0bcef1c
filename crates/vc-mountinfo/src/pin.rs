//! A handle that keeps a mount from going away.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::Symlinks;
use crate::sys::open_path;

/// An `O_PATH` handle on a path. While it lives, the mount's filesystem stays, even after a lazy unmount;
/// so the device behind it cannot be given to another.
#[derive(Debug)]
pub struct Pin {
    fd: OwnedFd,
}

/// A path could not be pinned.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {path:?}")]
pub struct PinError {
    /// The path asked for.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

impl Pin {
    /// Opens `path`; needs search permission on the way to it and none on itself.
    ///
    /// # Errors
    /// [`PinError`] when the path does not exist or cannot be reached.
    pub fn open(path: impl AsRef<Path>, symlinks: Symlinks) -> Result<Self, PinError> {
        let path = path.as_ref();
        let fd = open_path(None, path, symlinks == Symlinks::Follow);
        fd.map(|fd| Self { fd }).map_err(|source| PinError { path: path.into(), source })
    }
}

impl AsFd for Pin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
