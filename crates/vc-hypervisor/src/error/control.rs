//! What can go wrong when a machine is paused, resumed or asked.

use super::Cause;
use crate::MachineExit;

/// Why a machine was not paused or resumed, or did not say what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The hypervisor refused.
    #[error("the hypervisor refused to {step}")]
    Refused {
        /// The step.
        step: &'static str,
        /// What the hypervisor said.
        #[source]
        source: Cause,
    },
    /// No answer in time, so nobody knows whether it was done. Doing it again does no harm.
    #[error("the hypervisor did not answer in time to {step}")]
    Unknown {
        /// The step.
        step: &'static str,
    },
    /// The machine has ended.
    #[error("the machine ended while it was asked to {step}: {exit}")]
    MachineGone {
        /// The step.
        step: &'static str,
        /// How.
        exit: MachineExit,
    },
}
