//! How a container's root file system reaches the guest.
//!
//! Facts go in ([`Layer`]s: open, checked image files), a decision comes out ([`StoragePlan`]: layers to
//! plug, storages for the agent). The planner is pure; only [`Layer`]'s constructors look at the host.
#![forbid(unsafe_code)]

mod layer;
mod plan;

pub use layer::Layer;
pub use plan::{DiskPlug, PlanError, StoragePlan, plan_layers};
