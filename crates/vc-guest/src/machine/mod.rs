//! The guest as a machine: what there is to count, to switch on and to set.

mod clock;
mod copy_file;
mod details;
mod entropy;
mod hotplug;
mod metrics;
mod swap;
mod volume;

pub(crate) use clock::set_clock;
pub use copy_file::{CopyFileError, copy_file};
pub(crate) use details::details;
pub(crate) use entropy::reseed;
pub use hotplug::HotplugError;
pub(crate) use hotplug::{bring_online, probe_memory};
pub(crate) use metrics::metrics;
pub(crate) use swap::{add_swap, swap_device};
pub use volume::VolumeError;
pub(crate) use volume::{resize, stats};
