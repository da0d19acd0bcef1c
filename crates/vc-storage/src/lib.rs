//! How a container's root file system reaches the guest.
//!
//! [`Rootfs::of_mounts`] reads what a snapshotter hands over, in every form that containerd has, and looks
//! nothing up.
//!
//! Facts go in ([`Layer`]s: open, checked image files), a decision comes out ([`StoragePlan`]: disks to
//! plug, storages for the agent). The planner is pure; only what finds the layers looks at the host:
//! [`Layer::open`], [`layers_of_mounts`], [`layers_of_rootfs`].
#![forbid(unsafe_code)]

mod facts;
mod layer;
mod layers_plan;
mod mount;
mod packing;
mod plan;
mod rootfs;
mod volume;

pub use facts::{
    DirectoryFacts, DiskFacts, FactsError, HostFacts, LayerFacts, OpenError, OpenImages, RootFacts,
    RootfsError, Surroundings, VerityFacts, gather, rootfs_at,
};
pub use layer::{Layer, LayerSourceError, Missing, layers_of_mounts, layers_of_rootfs};
pub use layers_plan::{DiskPlug, LayersPlan, plan_layers};
pub use mount::Mount;
pub use packing::{Packing, PlannedDisk};
pub use plan::{
    CopyPlan, Decision, DiskPlan, DiskRefusal, DiskUse, Edit, ImagePlan, MountEdit, Part, PlanError,
    PlannedSource, PlannedStorage, PolicyError, ServicePlan, SharePlan, StoragePlan, StorageRequest,
    Unsupported, plan,
};
pub use rootfs::{
    BlockRootfs, DmVerityInfo, HashType, ImagePull, InvalidNydus, InvalidOption, InvalidVerityRoot,
    InvalidVirtualVolume, LayerSource, Layers, MakeDirectory, MakeFilesystem, MountsError, NydusExtra,
    NydusImage, Rootfs, TemplateError, Upper, VIRTUAL_VOLUME_OPTION, VerityRoot, VirtualVolume,
    VolumeMetadata, VolumeType, WritableImage,
};
pub use volume::{
    ContainerMount, DirectVolume, DirectVolumes, FsGroupOf, InvalidDirectVolume, MountFacts, MountPlan,
    MountPolicy, MountWay, VolumeCause, VolumeError, plan_mount,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
