//! What a container holds, as the list of steps that release it, newest first.
//!
//! Each step of a creation pushes its inverse before the next step starts. A failed creation runs the
//! list at once; a container that came to be keeps it until it is stopped. `Drop` cannot await, so
//! nothing is released behind anyone's back.

use vc_agent::{Agent, AgentError, Call};
use vc_hypervisor::{Machine, UnplugError};
use vc_types::{ContainerId, DeviceId};

use crate::error::{Cause, Leftover, Step};
use crate::timing::Timing;

/// One thing that is held, named by how it is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// A disk in the machine.
    Disk(DeviceId),
    /// The container in the guest, or perhaps: the guest was asked for it.
    GuestContainer(ContainerId),
}

/// Everything a container holds, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Undo(Vec<Held>);

impl Undo {
    pub(crate) fn push(&mut self, held: Held) {
        self.0.push(held);
    }

    /// Forgets what was pushed last: the step turned out to have changed nothing.
    pub(crate) fn forget_last(&mut self) {
        self.0.pop();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn disks(&self) -> impl Iterator<Item = &DeviceId> {
        self.0.iter().filter_map(|held| match held {
            Held::Disk(device) => Some(device),
            Held::GuestContainer(_) => None,
        })
    }

    /// Releases everything, newest first. What fails stays in the list and is told.
    ///
    /// Disks wait for the guest's container to go: a disk is not pulled from under a mount.
    pub(crate) async fn run(
        &mut self,
        machine: &impl Machine,
        agent: &impl Agent,
        timing: &Timing,
    ) -> Vec<Leftover> {
        let mut failed = Vec::new();
        let mut kept = Vec::new();
        let mut guest_holds = false;
        for held in self.0.drain(..).rev() {
            let released = match &held {
                Held::Disk(_) if guest_holds => Err(Cause::StillUsed),
                Held::Disk(device) => unplug(machine, device, timing).await,
                Held::GuestContainer(id) => remove(machine, agent, id, timing).await,
            };
            if let Err(cause) = released {
                guest_holds |= matches!(held, Held::GuestContainer(_));
                failed.push(Leftover { step: held.step(), cause });
                kept.push(held);
            }
        }
        kept.reverse();
        self.0 = kept;
        failed
    }
}

impl Held {
    fn step(&self) -> Step {
        match self {
            Self::Disk(device) => Step::Unplug(device.clone()),
            Self::GuestContainer(id) => Step::Container(Call::RemoveContainer, id.clone()),
        }
    }
}

async fn unplug(machine: &impl Machine, device: &DeviceId, timing: &Timing) -> Result<(), Cause> {
    match machine.unplug(device, timing.undo()).await {
        // What is not there, or went with the machine, is released.
        Ok(()) | Err(UnplugError::NotPlugged { .. } | UnplugError::MachineGone { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn remove(
    machine: &impl Machine,
    agent: &impl Agent,
    id: &ContainerId,
    timing: &Timing,
) -> Result<(), Cause> {
    let removed = tokio::select! {
        removed = agent.remove_container(id, timing.undo()) => removed,
        _ = machine.exited() => return Ok(()),
    };
    match removed {
        Ok(()) | Err(AgentError::NoSuchContainer { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
