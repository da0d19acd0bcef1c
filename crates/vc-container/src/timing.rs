//! How long each operation may take.

use std::time::Duration;

use tokio::time::Instant;
use vc_types::Deadline;

/// How long each operation may take. Every wait of this crate ends by one of these; docs/LIFECYCLE.md
/// tells which operation adds up which.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From the start of the hypervisor until it takes commands.
    pub launch: Duration,
    /// From then until the agent answers.
    pub boot: Duration,
    /// All steps of a container's creation together.
    pub create: Duration,
    /// All steps of any other operation together.
    pub request: Duration,
    /// From SIGKILL to the end of the process it was sent to.
    pub kill: Duration,
    /// All steps of an undo or a release together, whatever time the failed step took. Each step has its
    /// share, so that one that hangs leaves time for the others.
    pub undo: Duration,
    /// How long a container or a process is looked for that the guest was asked for and did not confirm.
    pub ghost: Duration,
    /// How often the guest is asked whether it still answers; never, if none.
    pub health: Option<Duration>,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            launch: Duration::from_secs(30),
            boot: Duration::from_secs(120),
            create: Duration::from_secs(60),
            request: Duration::from_secs(60),
            kill: Duration::from_secs(10),
            undo: Duration::from_secs(30),
            ghost: Duration::from_secs(300),
            health: None,
        }
    }
}

impl Timing {
    /// The deadline of an operation that is one call.
    pub(crate) fn request(&self) -> Deadline {
        Deadline::after(self.request)
    }

    /// The time for an undo or a release.
    pub(crate) fn undo(&self) -> Budget {
        Budget::of(self.undo)
    }
}

/// The time for several steps together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget(Instant);

impl Budget {
    /// `time` from now. A century is as good as for ever.
    pub(crate) fn of(time: Duration) -> Self {
        let now = Instant::now();
        let century = Duration::from_secs(100 * 365 * 24 * 3600);
        Self(now + time.min(century))
    }

    /// What is left of it.
    pub(crate) fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The deadline for a step that may take all that is left.
    pub(crate) fn deadline(self) -> Deadline {
        Deadline::after(self.remaining())
    }

    /// The deadline for one of `steps` steps that have equal shares of what is left.
    pub(crate) fn share(self, steps: usize) -> Deadline {
        let steps = u32::try_from(steps.max(1)).unwrap_or(u32::MAX);
        Deadline::after(self.remaining() / steps)
    }
}
