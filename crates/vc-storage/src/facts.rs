//! What the planner has to know about the host, as values.
//!
//! [`gather`] is the one place that looks; everything here may as well be made up by a test.

mod disk;
mod gather;
mod mounts;
mod open;
mod root;

use vc_device::{DeviceSource, PathKind};
use vc_mountinfo::DeviceUse;
use vc_types::HostPath;

use crate::rootfs::VerityRoot;
use crate::volume::MountFacts;

pub use gather::{FactsError, Surroundings, gather};
pub use open::{OpenError, OpenImages, disk_of_volume};
pub use root::{RootfsError, rootfs_at};

/// What is known about the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// About the root.
    pub root: RootFacts,
    /// About each mount, in its order.
    pub mounts: Vec<MountFacts>,
}

/// What is known about the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootFacts {
    /// About layers.
    Layers {
        /// About each, the top one first.
        layers: Vec<LayerFacts>,
        /// About the image that is written to, if there is one.
        upper: Option<DiskFacts>,
    },
    /// About a disk.
    Disk(DiskFacts),
    /// About the disk of each virtual volume.
    Disks(Vec<DiskFacts>),
    /// About a directory: the root itself, or a snapshot's.
    Directory(DirectoryFacts),
}

/// What is known about a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerFacts {
    /// Its image.
    pub image: DeviceSource,
    /// The files that have its data when the image has metadata only, in the order of its device table.
    pub blobs: Vec<DeviceSource>,
    /// Its file system.
    pub fs_type: String,
    /// What proves its content, if something does.
    pub verity: Option<VerityFacts>,
}

/// What proves the content of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerityFacts {
    /// The root of the tree of hashes.
    pub root: VerityRoot,
    /// Whether the tree begins with a superblock.
    pub has_superblock: bool,
    /// The size of a data block in bytes.
    pub data_block: u32,
    /// The size of a hash block in bytes.
    pub hash_block: u32,
}

/// What is known about a disk or an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskFacts {
    /// What it is, links followed; `None` when there is nothing.
    pub kind: Option<PathKind>,
    /// Whether it cannot be written to.
    pub read_only: bool,
    /// What this host uses it for.
    pub uses: Vec<DeviceUse>,
}

/// What is known about a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryFacts {
    /// What it is, links followed; `None` when there is nothing.
    pub kind: Option<PathKind>,
    /// Its path without links; `None` when there is nothing.
    pub resolved: Option<HostPath>,
    /// The disk that its file system is on.
    pub mounted_from: Option<HostPath>,
}
