//! Why a path could not be resolved to its mount.

use std::io;
use std::path::PathBuf;

use super::Way;

/// Why a path could not be resolved to its mount.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The path does not exist or cannot be reached.
    #[error("cannot look at {path:?}")]
    Stat {
        /// The path asked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The path exists, but nothing is mounted there.
    #[error("nothing is mounted at {path:?}; it is part of another mount")]
    NotMountPoint {
        /// The path asked for.
        path: PathBuf,
    },
    /// The mount was unmounted, or is not reachable from the caller's root.
    #[error(
        "the mount at {path:?} is not in the mount table ({malformed} malformed lines skipped); it was unmounted meanwhile, or belongs to another mount namespace"
    )]
    NotListed {
        /// The path asked for.
        path: PathBuf,
        /// How many lines of the table made no sense.
        malformed: usize,
    },
    /// `statmount` failed in a way that no other way would mend.
    #[error("statmount failed for the mount at {path:?}")]
    Statmount {
        /// The path asked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The way that was forced does not exist on this kernel.
    #[error("this kernel cannot look up {path:?} by {way:?}; do not force a way")]
    Unsupported {
        /// The path asked for.
        path: PathBuf,
        /// The way that was forced.
        way: Way,
    },
    /// The mount table could not be read.
    #[error("cannot look up {path:?} in the mount table")]
    Table {
        /// The path asked for.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// Why one way failed, and whether the next may do better.
pub(super) enum Refusal {
    TryNext(LookupError),
    Final(LookupError),
}

impl Refusal {
    /// A system call failed; if the kernel, or a filter before it, refused the call itself rather than this
    /// path, the next way may do without that call.
    pub(super) fn of_call(source: io::Error, error: impl FnOnce(io::Error) -> LookupError) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::EACCES) => Self::TryNext(error(source)),
            _ => Self::Final(error(source)),
        }
    }
}
