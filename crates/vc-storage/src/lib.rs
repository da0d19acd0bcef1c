//! How a container's root file system reaches the guest.
//!
//! Facts go in ([`Layer`]s: open, checked image files), a decision comes out ([`StoragePlan`]: disks to
//! plug, storages for the agent). The planner is pure; only what finds the layers looks at the host:
//! [`Layer::open`], [`layers_of_mounts`], [`layers_of_rootfs`].
#![forbid(unsafe_code)]

mod layer;
mod mount;
mod packing;
mod plan;

pub use layer::{Layer, LayerSourceError, layers_of_mounts, layers_of_rootfs};
pub use mount::Mount;
pub use packing::{Packing, PlannedDisk};
pub use plan::{DiskPlug, PlanError, StoragePlan, plan_layers};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
