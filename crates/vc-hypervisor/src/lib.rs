//! The port to a hypervisor: [`Hypervisor`] launches a [`Machine`], [`Hotplug`] changes its devices.
//!
//! Adapters implement it (`vc-qemu`), the orchestrator uses it and knows no other. Feature `fake` adds
//! a working model for tests and the obligations that every adapter is held to.
#![forbid(unsafe_code)]

mod error;
mod machine;
mod spec;

#[cfg(feature = "fake")]
pub mod conformance;
#[cfg(feature = "fake")]
pub mod fake;

pub use error::{LaunchError, PlugError, StopError, UnplugError};
pub use machine::{ExitCause, Hotplug, Hypervisor, Machine, MachineExit};
pub use spec::{Accelerator, InvalidAccelerator, MachineSpec};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
