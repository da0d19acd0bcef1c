//! Which file it is, whatever its name.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use crate::DeviceNumber;

/// Device and inode: two names with the same id name the same file.
///
/// One known limit: on overlayfs a file keeps its id when it is copied up, while whoever had it open goes
/// on reading the old copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The device of the filesystem, as `st_dev` tells it.
    pub device: DeviceNumber,
    /// The inode.
    pub inode: u64,
}

impl From<&Metadata> for FileId {
    fn from(metadata: &Metadata) -> Self {
        Self { device: DeviceNumber::from_raw(metadata.dev()), inode: metadata.ino() }
    }
}
