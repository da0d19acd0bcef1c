//! What a container holds, as the list of steps that release it, newest first.
//!
//! Each step of a creation pushes its inverse before the next step starts. A failed creation runs the
//! list at once; a container that came to be keeps it until it is stopped. `Drop` cannot await, so
//! nothing is released behind anyone's back.

use vc_agent::{Agent, AgentError, Call};
use vc_hypervisor::Machine;
use vc_types::{ContainerId, Deadline, HostPath};

use crate::devices::DeviceUse;
use crate::error::{Cause, Leftover, Step};
use crate::guest::Guest;
use crate::storage::{Following, VolumeUse, blocking, remove_image};
use crate::timing::Budget;

/// One thing that is held, named by how it is released.
#[derive(Debug)]
pub(crate) enum Held {
    /// An image that was made for it; only until it is there, for then the image has what it writes.
    Image(HostPath),
    /// Its part of the machine's size.
    Size(ContainerId),
    /// A device in the machine.
    Device(DeviceUse),
    /// A name in the shared directory.
    Share(String),
    /// The image that nydusd mounts for a container, and its number.
    Rafs(ContainerId, u32),
    /// A volume whose CSI driver is told of the sandbox; only until the container is there, for then the sandbox has it.
    Volume(VolumeUse),
    /// A copy that follows its source.
    Follow(Following),
    /// The container in the guest.
    GuestContainer {
        /// Which.
        id: ContainerId,
        /// Whether the guest said that it has it. If not, it may come yet.
        certain: bool,
    },
}

/// Everything a container holds, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Undo(Vec<Held>);

/// What came of a release.
#[derive(Debug, Default)]
pub(crate) struct Released {
    /// What could not be released. It stays in the list.
    pub(crate) left: Vec<Leftover>,
    /// Whether the guest may yet make the container, late.
    pub(crate) ghost: bool,
}

impl Undo {
    pub(crate) fn push(&mut self, held: Held) {
        self.0.push(held);
    }

    /// Takes back what was pushed last: the step turned out to have changed nothing.
    pub(crate) fn pop(&mut self) -> Option<Held> {
        self.0.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The guest has said that it has the container, which from now on may write to its images and volumes.
    pub(crate) fn confirm_container(&mut self) {
        self.0.retain(|held| !matches!(held, Held::Image(_) | Held::Volume(_)));
        if let Some(Held::GuestContainer { certain, .. }) = self.0.last_mut() {
            *certain = true;
        }
    }

    /// Releases everything, newest first, within `budget`. What fails stays in the list and is told.
    ///
    /// Devices wait for the guest's container to go: a disk is not pulled from under a mount.
    ///
    /// # Errors
    /// What came of it, when something is left.
    pub(crate) async fn run<M: Machine, A: Agent>(
        &mut self,
        guest: &Guest<M, A>,
        budget: Budget,
    ) -> Result<Released, Released> {
        let mut released = Released::default();
        let mut kept = Vec::new();
        let mut guest_holds = false;
        let mut steps = self.0.len();
        for held in self.0.drain(..).rev() {
            let step = held.step();
            let share = budget.share(steps);
            steps -= 1;
            let failed = match held {
                Held::Image(image) => {
                    let removed = image.clone();
                    let removed = blocking(move || remove_image(&removed)).await;
                    removed.err().map(|error| (Held::Image(image), error.into()))
                }
                Held::Volume(volume) => {
                    let released = guest.volumes.release(&volume).await;
                    released.err().map(|cause| (Held::Volume(volume), cause))
                }
                Held::Follow(following) => {
                    drop(following);
                    None
                }
                Held::Size(id) => {
                    guest.sizing.release(&id);
                    None
                }
                Held::Device(device) if guest_holds => Some((Held::Device(device), Cause::StillUsed)),
                Held::Device(device) => {
                    let released = guest.devices.release(&*guest.machine, device, share).await;
                    released.err().map(|(device, cause)| (Held::Device(device), cause))
                }
                Held::Share(name) if guest_holds => Some((Held::Share(name), Cause::StillUsed)),
                Held::Share(name) => match guest.shares.unbind(&name).await {
                    Ok(()) => None,
                    Err(cause) => Some((Held::Share(name), cause)),
                },
                Held::Rafs(id, number) if guest_holds => Some((Held::Rafs(id, number), Cause::StillUsed)),
                Held::Rafs(id, number) => {
                    let unmounted = guest.shares.unmount((&id, number), share).await;
                    unmounted.err().map(|cause| (Held::Rafs(id, number), cause))
                }
                Held::GuestContainer { id, certain } => match remove(guest, &id, share).await {
                    Ok(Removal::Done) => None,
                    Ok(Removal::NotThere) => {
                        released.ghost |= !certain;
                        None
                    }
                    Err(cause) => {
                        guest_holds = true;
                        Some((Held::GuestContainer { id, certain }, cause))
                    }
                },
            };
            if let Some((held, cause)) = failed {
                released.left.push(Leftover { step, cause });
                kept.push(held);
            }
        }
        kept.reverse();
        self.0 = kept;
        if released.left.is_empty() { Ok(released) } else { Err(released) }
    }
}

impl Held {
    fn step(&self) -> Step {
        match self {
            Self::Image(image) => Step::RemoveImage(image.clone()),
            Self::Volume(volume) => Step::Volume(volume.volume.clone()),
            Self::Follow(following) => Step::Copy(following.source().clone()),
            Self::Size(_) => Step::ResizeMachine,
            Self::Device(device) => Step::Unplug(device.device().clone()),
            Self::Share(name) => Step::Unshare(name.clone()),
            Self::Rafs(id, _) => Step::UnmountImage(id.clone()),
            Self::GuestContainer { id, .. } => Step::Container(Call::RemoveContainer, id.clone()),
        }
    }
}

/// What the guest said of a container that it was to remove.
pub(crate) enum Removal {
    /// It is gone, or the machine is.
    Done,
    /// There was none.
    NotThere,
}

/// Removes a container from the guest.
pub(crate) async fn remove<M: Machine, A: Agent>(
    guest: &Guest<M, A>,
    id: &ContainerId,
    deadline: Deadline,
) -> Result<Removal, Cause> {
    match guest.ask(guest.agent.remove_container(id, deadline)).await {
        Ok(()) | Err(Cause::MachineGone(_)) => Ok(Removal::Done),
        Err(Cause::Agent(AgentError::NoSuchContainer { .. })) => Ok(Removal::NotThere),
        Err(cause) => Err(cause),
    }
}
