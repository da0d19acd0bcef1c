//! What can go wrong, by operation.

use std::io;

use vc_device::PortError;
use vc_types::{DeviceId, HostPath};

use crate::MachineExit;

/// What an adapter's own protocol answered; opaque here, printed in the chain.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a machine could not be launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A file of the guest image is missing or unreadable.
    #[error(
        "the guest's {what} cannot be read at {path}: build the guest image with `cargo xtask guest`, or name another"
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

/// Why a device could not be plugged.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// No port for it, or its name is taken.
    #[error("device {device} cannot be plugged")]
    Port {
        /// The device.
        device: DeviceId,
        /// Why.
        #[source]
        source: PortError,
    },
    /// The hypervisor refused.
    #[error("the hypervisor refused to {step} for device {device}")]
    Refused {
        /// The device.
        device: DeviceId,
        /// The step.
        step: &'static str,
        /// What the hypervisor said.
        #[source]
        source: Cause,
    },
    /// A command had no answer in time, so nobody knows whether the device is plugged. It keeps its
    /// port; unplug it.
    #[error("the hypervisor did not answer in time to {step} for device {device}")]
    Unknown {
        /// The device.
        device: DeviceId,
        /// The step.
        step: &'static str,
    },
    /// The machine has ended.
    #[error("the machine ended while device {device} was being plugged: {exit}")]
    MachineGone {
        /// The device.
        device: DeviceId,
        /// How.
        exit: MachineExit,
    },
}

/// Why a device could not be unplugged.
#[derive(Debug, thiserror::Error)]
pub enum UnplugError {
    /// No such device.
    #[error("device {device} cannot be unplugged")]
    NotPlugged {
        /// The device.
        device: DeviceId,
        /// Why.
        #[source]
        source: PortError,
    },
    /// The guest did not let go of the device in time.
    #[error("the guest did not release device {device} in time")]
    GuestHoldsOn {
        /// The device.
        device: DeviceId,
    },
    /// The guest refused to let go of the device.
    #[error("the guest refused to release device {device}")]
    GuestRefused {
        /// The device.
        device: DeviceId,
    },
    /// The hypervisor refused.
    #[error("the hypervisor refused to {step} for device {device}")]
    Refused {
        /// The device.
        device: DeviceId,
        /// The step.
        step: &'static str,
        /// What the hypervisor said.
        #[source]
        source: Cause,
    },
    /// A command had no answer in time.
    #[error("the hypervisor did not answer in time to {step} for device {device}")]
    Unknown {
        /// The device.
        device: DeviceId,
        /// The step.
        step: &'static str,
    },
    /// The machine has ended, and the device with it.
    #[error("the machine ended while device {device} was being unplugged: {exit}")]
    MachineGone {
        /// The device.
        device: DeviceId,
        /// How.
        exit: MachineExit,
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
