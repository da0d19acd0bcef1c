//! How long each step may take.

use std::time::Duration;

use vc_types::Deadline;

/// How long each step may take. Every wait of this crate ends by one of these.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From the start of the hypervisor until it takes commands.
    pub launch: Duration,
    /// From then until the agent answers.
    pub boot: Duration,
    /// One request to the agent or to the hypervisor.
    pub request: Duration,
    /// From SIGKILL to the end of the process it was sent to.
    pub kill: Duration,
    /// From the agent's consent to the end of the machine, before it is ended by force.
    pub power_off: Duration,
    /// One step of an undo or a teardown, whatever the time the failed step took.
    pub undo: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            launch: Duration::from_secs(30),
            boot: Duration::from_secs(120),
            request: Duration::from_secs(60),
            kill: Duration::from_secs(10),
            power_off: Duration::from_secs(5),
            undo: Duration::from_secs(10),
        }
    }
}

impl Timing {
    pub(crate) fn request(&self) -> Deadline {
        Deadline::after(self.request)
    }

    pub(crate) fn undo(&self) -> Deadline {
        Deadline::after(self.undo)
    }
}
