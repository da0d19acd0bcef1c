//! Why storages are not mounted.

use super::overlay::LowerdirError;
use super::request::InvalidStorage;
use super::verity::VerityError;
use crate::block::BlockError;
use crate::modules::ModuleError;
use nix::errno::Errno;
use std::path::PathBuf;
use vc_types::GuestPath;

/// Why a request's storages are not mounted, or not unmounted.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The request cannot be served.
    #[error("cannot use the storage for {0:?}")]
    Invalid(String, #[source] InvalidStorage),
    /// A device did not come.
    #[error("cannot mount the storage at {0}")]
    Block(GuestPath, #[source] BlockError),
    /// The driver of a device cannot be loaded.
    #[error("cannot load the driver of a storage's device")]
    Module(#[from] ModuleError),
    /// An overlay does not stand on its request's layers.
    #[error("cannot mount the overlay at {0}")]
    Lowerdir(GuestPath, #[source] LowerdirError),
    /// A directory, file or link cannot be made.
    #[error("cannot make {0:?}")]
    Make(PathBuf, #[source] std::io::Error),
    /// The contents cannot be set up.
    #[error("cannot {step} {path:?}")]
    Contents {
        /// What failed.
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel does not have as many huge pages.
    #[error("the guest has {got} of {wanted} huge pages of {page_size} bytes: give it more memory")]
    HugePages {
        /// The size of a page.
        page_size: u64,
        /// How many are needed.
        wanted: u64,
        /// How many there are.
        got: u64,
    },
    /// A verified device cannot be made or removed.
    #[error("cannot verify the layer at {0:?}")]
    Verity(PathBuf, #[source] VerityError),
    /// The kernel refuses the mount.
    #[error("cannot mount {fs_type} from {source_name:?} at {mount_point:?}")]
    Mount {
        /// The file system.
        fs_type: String,
        /// The device or directory.
        source_name: String,
        /// Where.
        mount_point: PathBuf,
        /// Why.
        #[source]
        errno: Errno,
    },
    /// A storage cannot be unmounted.
    #[error("cannot unmount the storage at {0:?}")]
    Unmount(PathBuf, #[source] Errno),
    /// An update of a mount that is not there.
    #[error("no storage is mounted at {0}")]
    NotMounted(GuestPath),
}
