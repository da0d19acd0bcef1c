//! What can go wrong with devices.

use std::io;

use vc_device::PortError;
use vc_types::DeviceId;

use super::Cause;
use crate::MachineExit;

/// Why a device could not be plugged.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// No place for it, or its name is taken.
    #[error("device {device} cannot be plugged")]
    Port {
        /// The device.
        device: DeviceId,
        /// Why.
        #[source]
        source: PortError,
    },
    /// No machine of this kind takes such a device.
    #[error("device {device} cannot be plugged: {reason}")]
    Unsupported {
        /// The device.
        device: DeviceId,
        /// Why.
        reason: &'static str,
    },
    /// A step on the host failed.
    #[error("could not {step} for device {device}")]
    Host {
        /// The device.
        device: DeviceId,
        /// The step.
        step: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
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
    /// place; unplug it.
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
    /// The guest does not run, so that it cannot let go of the device. It will once it is resumed.
    #[error("the guest is paused and cannot release device {device}: resume it")]
    GuestPaused {
        /// The device.
        device: DeviceId,
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
