//! Storages: instructions to the agent to mount something in the guest.

use vc_types::GuestPath;

/// Mount this in the guest. Field names are those of the agent protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// What kind of thing is mounted, and so how `source` is read.
    pub driver: StorageDriver,
    /// Options to the driver itself.
    pub driver_options: Vec<String>,
    /// For [`StorageDriver::Block`] the PCI path of the disk; else as for mount(8).
    pub source: String,
    /// File system type.
    pub fs_type: String,
    /// Mount options.
    pub options: Vec<String>,
    /// Where. Mounts are counted by this path, so it must be a function of what is mounted.
    pub mount_point: GuestPath,
}

/// The kinds of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageDriver {
    /// A virtio-blk disk, found by its PCI path.
    Block,
    /// An overlay of other mounts.
    Overlay,
}

impl StorageDriver {
    /// The driver's name in the agent protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "blk",
            Self::Overlay => "overlayfs",
        }
    }
}
