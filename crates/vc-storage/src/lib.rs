//! How a container's root file system reaches the guest.
//!
//! [`Rootfs::of_mounts`] reads what a snapshotter hands over, in every form that containerd has, and looks
//! nothing up.
//!
//! Facts go in ([`gather`] finds them), a decision comes out ([`plan`]): disks to plug, directories to share,
//! files to copy, storages for the agent. The planner is pure; only [`gather`], [`rootfs_at`] and what opens the
//! disks of a plan ([`OpenImages`]) look at the host.
#![forbid(unsafe_code)]

mod facts;
mod layer;
mod mount;
mod packing;
mod plan;
mod rootfs;
mod volume;

pub use facts::{
    DirectoryFacts, DiskFacts, FactsError, HostFacts, LayerFacts, OpenError, OpenImages, RootFacts,
    RootfsError, Surroundings, VerityFacts, disk_of_volume, gather, rootfs_at,
};
pub use layer::{Layer, LayerSourceError};
pub use mount::Mount;
pub use packing::Packing;
pub use plan::{
    CopyPlan, Decision, DiskPlan, DiskPlug, DiskRefusal, DiskUse, Edit, ImagePlan, MountEdit, Part,
    PlanError, PlannedSource, PlannedStorage, PolicyError, SHARE_TAG, ServicePlan, SharePlan, StoragePlan,
    StorageRequest, Unsupported, WATCHABLE, guest_volume, plan,
};
pub use rootfs::{
    BlockRootfs, DmVerityInfo, HashType, ImagePull, InvalidNydus, InvalidOption, InvalidVerityRoot,
    InvalidVirtualVolume, LayerSource, Layers, MakeDirectory, MakeFilesystem, MountsError, NydusExtra,
    NydusImage, Rootfs, TemplateError, Upper, VIRTUAL_VOLUME_OPTION, VerityRoot, VirtualVolume,
    VolumeMetadata, VolumeType, WritableImage,
};
pub use volume::{
    ContainerMount, DirectVolume, DirectVolumes, FsGroupOf, InvalidDirectVolume, InvalidSharedFs, MountFacts,
    MountPlan, MountPolicy, MountWay, SharedFs, VolumeCause, VolumeError, plan_mount,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
