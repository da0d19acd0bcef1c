//! Where to look: a path, perhaps from an open directory, or an open file.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use super::Symlinks;
use crate::FileId;
use crate::process::ProcessView;
use crate::sys::open_path;
use crate::sys::statx::{FileStat, statx, statx_fd};

/// What a look-up was asked about.
#[derive(Debug)]
pub(super) enum Place<'a> {
    Path(Option<BorrowedFd<'a>>, &'a Path),
    Fd(BorrowedFd<'a>),
    /// A path as another process sees it.
    Process(&'a ProcessView, &'a Path),
}

impl Place<'_> {
    /// The place as named in errors.
    pub(super) fn name(&self) -> PathBuf {
        match self {
            Self::Path(_, path) | Self::Process(_, path) => (*path).into(),
            Self::Fd(fd) => path_of(*fd).unwrap_or_else(|_| format!("fd {}", fd.as_raw_fd()).into()),
        }
    }

    pub(super) fn statx(&self, symlinks: Symlinks, id_kind: u32) -> io::Result<FileStat> {
        match *self {
            Self::Path(dir, path) => statx(dir, path, symlinks == Symlinks::Follow, id_kind),
            Self::Fd(fd) => statx_fd(fd, id_kind),
            Self::Process(view, path) => statx_fd(view.open_path(path, symlinks)?.as_fd(), id_kind),
        }
    }

    /// A handle that keeps the mount from going away; `None` where the caller has one.
    pub(super) fn pin(&self, symlinks: Symlinks) -> io::Result<Option<OwnedFd>> {
        match *self {
            Self::Path(dir, path) => open_path(dir, path, symlinks == Symlinks::Follow).map(Some),
            Self::Fd(_) => Ok(None),
            Self::Process(view, path) => view.open_path(path, symlinks).map(Some),
        }
    }

    /// The absolute path with symlinks resolved, as far as the caller may see them.
    pub(super) fn absolute(&self, symlinks: Symlinks) -> io::Result<PathBuf> {
        let given = match *self {
            Self::Path(Some(dir), path) if path.is_relative() => path_of(dir)?.join(path),
            Self::Path(_, path) => std::path::absolute(path)?,
            Self::Fd(fd) => return verified_path_of(fd),
            // What the symlinks on it are over there cannot be told.
            Self::Process(_, path) if is_plain(path) => return Ok(path.into()),
            Self::Process(..) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let resolved = match (symlinks, given.parent(), given.file_name()) {
            (Symlinks::NoFollow, Some(parent), Some(name)) => {
                parent.canonicalize().and_then(|parent| exists(parent.join(name)))
            }
            _ => given.canonicalize(),
        };
        match resolved {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && is_plain(&given) => {
                as_far_as_seen(&given)
            }
            other => other,
        }
    }
}

/// The path with the symlinks resolved that the caller may see. What lies behind a closed directory is taken as
/// it is written.
fn as_far_as_seen(path: &Path) -> io::Result<PathBuf> {
    for seen in path.ancestors().skip(1) {
        match (seen.canonicalize(), path.strip_prefix(seen)) {
            (Ok(resolved), Ok(rest)) => return Ok(resolved.join(rest)),
            (Err(e), _) if e.kind() != io::ErrorKind::PermissionDenied => return Err(e),
            _ => {}
        }
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

/// Where the kernel thinks an open file is.
fn path_of(fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()))
}

/// The same, checked: of a mount that is unmounted it would be the path within it, which looks like another.
fn verified_path_of(fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    let path = path_of(fd)?;
    let open = File::from(fd.try_clone_to_owned()?).metadata()?;
    let named = path.symlink_metadata()?;
    if FileId::from(&open) == FileId::from(&named) { Ok(path) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn exists(path: PathBuf) -> io::Result<PathBuf> {
    path.symlink_metadata().map(|_| path)
}

/// Whether the text of a path can be compared as it is: without `..`, which could lead out of a symlink.
fn is_plain(path: &Path) -> bool {
    path.has_root() && path.components().all(|component| component != Component::ParentDir)
}
