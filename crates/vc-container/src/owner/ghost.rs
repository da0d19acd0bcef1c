//! What the guest makes although nobody waits for it any more: looked for, and removed.

use std::fmt;
use std::time::Duration;

use vc_agent::{Agent, ProcessRef};
use vc_hypervisor::Machine;
use vc_types::{ContainerId, Deadline};

use super::Owner;
use crate::guest::Guest;
use crate::timing::Budget;
use crate::undo::{Removal, remove};

/// The first pause between two looks, which doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Something that the guest was asked for, has not confirmed, and may make yet.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Ghost {
    Container(ContainerId),
    Process(ProcessRef),
}

impl<M: Machine, A: Agent> Owner<M, A> {
    /// Looks for it until it was found or the time is up.
    pub(super) fn look_for_ghost(&mut self, ghost: Ghost) {
        let time = Budget::of(self.guest.timing.ghost);
        self.look_after(FIRST_PAUSE, ghost, time);
    }

    /// Looks again after a pause: no agent tells when a call that nobody waits for is over.
    fn look_after(&mut self, pause: Duration, ghost: Ghost, time: Budget) {
        let guest = self.guest.clone();
        self.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = guest.machine.exited() => {}
            }
            move |owner: &mut Self| owner.look(pause, ghost, time)
        });
    }

    fn look(&mut self, pause: Duration, ghost: Ghost, time: Budget) {
        let is_over = self.machine_exit.is_some() || time.remaining().is_zero();
        // Whoever has the name by now would be taken for the ghost. If that comes yet, the guest tells that
        // there are two.
        if is_over || self.stopping.is_some() || self.knows(&ghost) {
            return;
        }
        self.haunted.push(ghost.clone());
        let guest = self.guest.clone();
        self.spawn(async move {
            let found = guest.exorcise(&ghost, guest.timing.request()).await;
            move |owner: &mut Self| {
                owner.haunted.retain(|other| *other != ghost);
                if found {
                    tracing::warn!(%ghost, "the guest had made it late; it is gone again");
                } else {
                    owner.look_after((2 * pause).min(LONGEST_PAUSE), ghost, time);
                }
            }
        });
    }

    /// Whether its name cannot be used, since what has it in the guest is being removed.
    pub(super) fn is_haunted(&self, ghost: &Ghost) -> bool {
        self.haunted.contains(ghost)
    }

    fn knows(&mut self, ghost: &Ghost) -> bool {
        match ghost {
            Ghost::Container(id) => self.containers.contains_key(id),
            Ghost::Process(process) => match self.containers.get_mut(&process.container) {
                // It went with its container.
                None => true,
                Some(record) => record.process(process).is_some(),
            },
        }
    }
}

impl<M: Machine, A: Agent> Guest<M, A> {
    /// Removes it if it is there; tells whether it was.
    async fn exorcise(&self, ghost: &Ghost, deadline: Deadline) -> bool {
        match ghost {
            Ghost::Container(id) => matches!(remove(self, id, deadline).await, Ok(Removal::Done)),
            Ghost::Process(process) => self.kill_process(process, deadline).await.unwrap_or(false),
        }
    }
}

impl fmt::Display for Ghost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(id) => write!(f, "container {id}"),
            Self::Process(process) => write!(f, "process {process}"),
        }
    }
}
