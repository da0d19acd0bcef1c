//! The mounts as another process sees them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::sys::ioctl::mount_namespace_id;
use crate::sys::statmount::{Buffer, ask};
use crate::sys::statx::{MNT_ID_UNIQUE, statx_fd};
use crate::sys::{open_in_root, open_path};
use crate::{MountInfoReader, Symlinks};

/// The mount table of the calling thread. `self` would be that of the process's first thread, which may be in
/// another mount namespace.
pub(crate) const OWN_TABLE: &str = "/proc/thread-self/mountinfo";

/// A process's root directory and mount namespace, held open: another process that gets its number later is
/// never taken for it.
#[derive(Debug)]
pub struct ProcessView {
    /// `/proc/<pid>`.
    directory: OwnedFd,
    root: OwnedFd,
    /// The id to ask for its mounts by. None for a process whose root is not that of the namespace, from
    /// which the kernel would tell all mount points.
    namespace_id: Option<u64>,
}

/// Why a process's view cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ProcessViewError {
    /// There is no such process.
    #[error("there is no process {pid}")]
    NoProcess {
        /// The number asked for.
        pid: u32,
    },
    /// It may not be looked at, or `/proc` is not mounted.
    #[error("cannot open {path:?}; looking at another user's process needs root")]
    Open {
        /// What could not be opened.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ProcessView {
    /// Opens the view of the process with this number in the caller's PID namespace.
    ///
    /// # Errors
    /// [`ProcessViewError`] when there is no such process or it may not be looked at (ptrace(2) access).
    pub fn open(pid: u32) -> Result<Self, ProcessViewError> {
        let path = PathBuf::from(format!("/proc/{pid}"));
        let failed = |path: PathBuf| {
            move |source: io::Error| match source.raw_os_error() {
                Some(libc::ENOENT | libc::ESRCH) => ProcessViewError::NoProcess { pid },
                _ => ProcessViewError::Open { path, source },
            }
        };
        let directory = open_path(None, &path, true).map_err(failed(path.clone()))?;
        let dir = Some(directory.as_fd());
        let root = open_path(dir, Path::new("root"), true).map_err(failed(path.join("root")))?;
        // Before Linux 6.11 a namespace has no id; then its mounts are looked up in its table.
        let namespace = File::open(inside(&directory, "ns/mnt")).map_err(failed(path.join("ns/mnt")))?;
        let namespace_id = mount_namespace_id(namespace.as_fd()).ok();
        let namespace_id = namespace_id.filter(|id| is_root_of(root.as_fd(), *id).unwrap_or(false));
        Ok(Self { directory, root, namespace_id })
    }

    /// Starts to read its mount table.
    ///
    /// # Errors
    /// What the kernel says when the process is gone or may not be looked at.
    pub fn mountinfo(&self) -> io::Result<MountInfoReader<File>> {
        File::open(self.table()).map(MountInfoReader::new)
    }

    pub(crate) fn table(&self) -> PathBuf {
        inside(&self.directory, "mountinfo")
    }

    pub(crate) fn namespace_id(&self) -> Option<u64> {
        self.namespace_id
    }

    /// Opens a path as the process would.
    pub(crate) fn open_path(&self, path: &Path, symlinks: Symlinks) -> io::Result<OwnedFd> {
        open_in_root(self.root.as_fd(), path, symlinks == Symlinks::Follow)
    }
}

/// Whether this directory is the root of the whole namespace.
fn is_root_of(root: BorrowedFd<'_>, namespace_id: u64) -> io::Result<bool> {
    let stat = statx_fd(root, MNT_ID_UNIQUE)?;
    let (Some(id), Some(true)) = (stat.mount_id(MNT_ID_UNIQUE), stat.is_mount_root()) else {
        return Ok(false);
    };
    let mut buffer = Buffer::default();
    buffer.ask(id, ask::MNT_POINT, Some(namespace_id))?;
    Ok(buffer.answer().string(ask::MNT_POINT) == Some(b"/"))
}

/// A path to a file in an open directory.
fn inside(directory: &OwnedFd, name: &str) -> PathBuf {
    format!("/proc/thread-self/fd/{}/{name}", directory.as_raw_fd()).into()
}
