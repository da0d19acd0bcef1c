//! What can go wrong, by operation.

mod control;
mod hotplug;
mod resize;

use std::io;

use vc_device::PortError;
use vc_types::{HostPath, MiB};

use crate::MachineExit;

pub use control::ControlError;
pub use hotplug::{PlugError, UnplugError};
pub use resize::ResizeError;

/// What an adapter's own protocol answered; opaque here, printed in the chain.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a machine could not be launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A file of the guest image is missing or unreadable.
    #[error(
        "the guest's {what} cannot be read at {path}: build the guest image with `vc guest build`, or name another"
    )]
    Image {
        /// Kernel or initrd.
        what: &'static str,
        /// Where it should be.
        path: HostPath,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program that is needed is not there.
    #[error("{program} was not found: {remedy}")]
    ProgramMissing {
        /// The program.
        program: String,
        /// How to get it.
        remedy: &'static str,
    },
    /// KVM was asked for and cannot be had.
    #[error("KVM cannot be used: {reason}")]
    NoKvm {
        /// Why, and what to do.
        reason: String,
    },
    /// Less memory than the guest image needs to start.
    #[error("{wanted} is too little memory for this guest image, which needs {least} to start")]
    TooLittleMemory {
        /// What was asked for.
        wanted: MiB,
        /// What is needed.
        least: MiB,
    },
    /// The type of machine cannot have what was asked for.
    #[error("a machine of type {machine} cannot be: {reason}")]
    MachineType {
        /// The type.
        machine: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// The machine as asked for cannot be.
    #[error("the machine cannot be built")]
    Spec(#[from] PortError),
    /// A step on the host failed.
    #[error("could not {step}")]
    Host {
        /// The step.
        step: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The hypervisor ended before it took commands.
    #[error("{program} ended while the machine was being launched: {exit}")]
    Exited {
        /// Which process.
        program: &'static str,
        /// How.
        exit: MachineExit,
    },
    /// The hypervisor's control connection failed.
    #[error("the hypervisor did not take commands")]
    Control(#[source] Cause),
    /// A step took too long.
    #[error("gave up waiting: {step} took too long")]
    Deadline {
        /// The step.
        step: &'static str,
    },
}

/// Why a machine did not end.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// A process did not end in time although it was killed.
    #[error("{program} (process {pid}) did not end in time although it was killed")]
    StillRunning {
        /// Which process.
        program: &'static str,
        /// Its process id.
        pid: u32,
    },
    /// A file of the machine could not be removed.
    #[error("{path} could not be removed")]
    Leftover {
        /// The file.
        path: HostPath,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
