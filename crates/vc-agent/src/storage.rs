//! Storages: instructions to the agent to mount something in the guest.

use vc_types::GuestPath;

/// Mount this in the guest. Field names are those of the agent protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// What kind of thing is mounted, and so how `source` is read.
    pub driver: StorageDriver,
    /// Options to the driver itself.
    pub driver_options: Vec<String>,
    /// What is mounted, in the way of the driver; see [`StorageDriver`].
    pub source: String,
    /// File system type.
    pub fs_type: String,
    /// Mount options.
    pub options: Vec<String>,
    /// Where. Mounts are counted by this path, so it must be a function of what is mounted.
    pub mount_point: GuestPath,
    /// The group that all of it is to belong to.
    pub fs_group: Option<FsGroup>,
    /// Whether it stays until the sandbox ends, whichever containers use it.
    pub shared: bool,
}

impl Storage {
    /// A storage without options: `source`, found as `driver` says, of the type `fs_type`, at `mount_point`.
    pub fn new(
        driver: StorageDriver,
        source: impl Into<String>,
        fs_type: impl Into<String>,
        mount_point: GuestPath,
    ) -> Self {
        Self {
            driver,
            driver_options: Vec::new(),
            source: source.into(),
            fs_type: fs_type.into(),
            options: Vec::new(),
            mount_point,
            fs_group: None,
            shared: false,
        }
    }
}

/// The kinds of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageDriver {
    /// A virtio-blk disk; the source is its PCI path.
    Block,
    /// A SCSI disk; the source is `id:lun`.
    Scsi,
    /// A virtio-mmio disk; the source is its node in the guest.
    MmioBlock,
    /// Persistent memory; the source is its node in the guest.
    Nvdimm,
    /// A directory that the host shares; the source is its tag.
    VirtioFs,
    /// An overlay of other mounts.
    Overlay,
    /// A directory of the guest, seen from another place.
    Bind,
    /// A file system in the guest's memory: tmpfs, or hugetlbfs.
    Ephemeral,
    /// A directory that the guest makes.
    Local,
    /// A directory whose files the agent copies again when they change.
    WatchableBind,
}

impl StorageDriver {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Block,
        Self::Scsi,
        Self::MmioBlock,
        Self::Nvdimm,
        Self::VirtioFs,
        Self::Overlay,
        Self::Bind,
        Self::Ephemeral,
        Self::Local,
        Self::WatchableBind,
    ];

    /// The driver's name in the agent protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "blk",
            Self::Scsi => "scsi",
            Self::MmioBlock => "mmioblk",
            Self::Nvdimm => "nvdimm",
            Self::VirtioFs => "virtio-fs",
            Self::Overlay => "overlayfs",
            Self::Bind => "bind",
            Self::Ephemeral => "ephemeral",
            Self::Local => "local",
            Self::WatchableBind => "watchable-bind",
        }
    }
}

/// The group that the files of a volume are given to, as Kubernetes' `fsGroup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FsGroup {
    /// Its number; any but 0, which owns everything already.
    pub id: u32,
    /// When the files are given to it.
    pub policy: FsGroupPolicy,
}

/// When the files of a volume are given to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FsGroupPolicy {
    /// Each time.
    Always,
    /// Only when the volume's root does not belong to it already.
    OnRootMismatch,
}
