//! The port to a hypervisor: [`Hypervisor`] launches a [`Machine`], [`Hotplug`] changes its devices,
//! [`Resize`] its size.
//!
//! Adapters implement it (`vc-qemu`), the orchestrator uses it and knows no other. Feature `fake` adds
//! a working model for tests and the obligations that every adapter is held to.
#![forbid(unsafe_code)]

mod capabilities;
mod error;
mod exit;
mod hotplug;
mod machine;
mod resize;
mod spec;
mod statistics;

#[cfg(feature = "fake")]
pub mod conformance;
#[cfg(feature = "fake")]
pub mod fake;

pub use capabilities::Capabilities;
pub use error::{ControlError, LaunchError, PlugError, ResizeError, StopError, UnplugError};
pub use exit::{ExitCause, MachineExit, OneLine, ShutdownCause};
pub use hotplug::Hotplug;
pub use machine::{Hypervisor, Machine};
pub use resize::Resize;
pub use spec::{Accelerator, InvalidAccelerator, MachineSpec, MemoryGrowth};
pub use statistics::{DiskStatistics, Statistics, VcpuStatistics};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
