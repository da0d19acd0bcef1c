//! What can go wrong when a machine is resized.

use vc_types::{DeviceId, MiB};

use super::Cause;
use crate::MachineExit;

/// Why a machine was not resized.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// More vCPUs than the machine was launched for.
    #[error("the machine can have {most} vCPUs at most; launch it with a larger `max_vcpus`")]
    TooManyVcpus {
        /// The most it can have.
        most: u8,
    },
    /// More memory than the machine was launched for.
    #[error("the machine can have {most} of memory at most; launch it with a larger `memory_growth`")]
    TooMuchMemory {
        /// The most it can have.
        most: MiB,
    },
    /// Less than there is, which no guest can give up.
    #[error("the machine has {least} and cannot have less")]
    TooLittle {
        /// What it was launched with, or a disk has, with its unit.
        least: String,
    },
    /// No such disk is plugged.
    #[error("{device} is no disk that is plugged")]
    NoDisk {
        /// The disk.
        device: DeviceId,
    },
    /// Taking a vCPU away would harm this machine.
    #[error("no vCPU can be taken away: {reason}")]
    VcpusStay {
        /// Why.
        reason: &'static str,
    },
    /// The hypervisor refused.
    #[error("the hypervisor refused to {step}")]
    Refused {
        /// The step.
        step: &'static str,
        /// What the hypervisor said.
        #[source]
        source: Cause,
    },
    /// A command had no answer in time, so nobody knows what the machine has now. Call again.
    #[error("the hypervisor did not answer in time to {step}")]
    Unknown {
        /// The step.
        step: &'static str,
    },
    /// The machine has ended.
    #[error("the machine ended while it was being resized: {exit}")]
    MachineGone {
        /// How.
        exit: MachineExit,
    },
}
