//! What there is, compared with what was recorded.

use std::collections::BTreeMap;

use vc_agent::{Agent, AgentError};
use vc_hypervisor::Machine;
use vc_types::{ContainerId, DeviceId};

use crate::devices::DeviceUse;
use crate::error::Cause;
use crate::guest::Guest;
use crate::owner::Record;
use crate::record::{ContainerRecord, ExitRecord, Phase, SandboxRecord};
use crate::storage::{Following, LeftShares, Shares, Watch};
use crate::timing::Budget;
use crate::undo::{Held, Undo, remove};

/// What the guest says of a container.
enum Found {
    Yes,
    No,
    /// It did not answer; what was recorded counts.
    Unknown,
}

impl<M: Machine, A: Agent> Guest<M, A> {
    /// Goes on with the shared directory, if there is one.
    pub(crate) async fn resume_shares(&self, record: &SandboxRecord) {
        // What cannot be asked is as recorded.
        let plugged = self.machine.plugged(self.timing.request()).await;
        let is_plugged = plugged.map_or(true, |plugged| plugged.contains(&Shares::device()));
        self.shares.resume(LeftShares::of(record), is_plugged, self.timing.request()).await;
    }

    /// Brings machine, guest and record in line, and gives the containers that there are.
    pub(crate) async fn reconcile(&self, recorded: Vec<ContainerRecord>) -> BTreeMap<ContainerId, Record> {
        let mut containers = BTreeMap::new();
        let mut gone = Vec::new();
        for mut container in recorded {
            if container.phase == Phase::Creating {
                self.forget(&container).await;
                gone.push(container.id);
                continue;
            }
            self.assert_phase(&mut container).await;
            let mut held = Undo::default();
            held.push(Held::Size(container.id.clone()));
            let resources = crate::guest_spec::guest_resources(container.resources.clone());
            // Nobody else resizes the machine yet, and it keeps what it has.
            let budget = Budget::of(self.timing.request);
            if let Err(cause) = self.sizing.claim(self, &container.id, resources, budget).await {
                tracing::warn!(container = %container.id, %cause, "the machine's size is not what it should be");
            }
            for handle in self.devices.handles(&container.id) {
                held.push(Held::Device(DeviceUse::Used(handle)));
            }
            for name in &container.shares {
                held.push(Held::Share(name.clone()));
            }
            if let Some(number) = container.rafs {
                held.push(Held::Rafs(container.id.clone(), number));
            }
            for follow in &container.follows {
                match Watch::of(&follow.plan().source).await {
                    Ok(watch) => {
                        let agent = self.agent.clone();
                        let following = Following::start(agent, follow.plan(), watch, self.timing, true);
                        held.push(Held::Follow(following));
                    }
                    // It went with its pod, or will not change any more.
                    Err(error) => {
                        tracing::warn!(container = %container.id, %error, "a copy follows its source no more");
                    }
                }
            }
            held.push(Held::GuestContainer { id: container.id.clone(), certain: true });
            containers.insert(container.id.clone(), Record::recovered(container, held));
        }
        self.reconcile_devices(|id| containers.contains_key(id)).await;
        let written = self.note(|record| {
            gone.iter().for_each(|id| record.forget(id));
            for container in &mut record.containers {
                if let Some(known) = containers.get(&container.id) {
                    known.note(container);
                }
            }
        });
        if let Err(cause) = written.await {
            tracing::warn!(%cause, "what was found could not be written down");
        }
        containers
    }

    /// Removes a container that nobody was told of.
    async fn forget(&self, container: &ContainerRecord) {
        let id = &container.id;
        let removed = remove(self, id, self.timing.request()).await;
        if let Err(cause) = removed {
            tracing::warn!(container = %id, %cause, "a container that was being created may be in the guest");
        }
        if let Some(number) = container.rafs
            && let Err(cause) = self.shares.unmount((id, number), self.timing.request()).await
        {
            tracing::warn!(container = %id, %cause, "nydusd may still mount its image");
        }
        for name in &container.shares {
            if let Err(cause) = self.shares.unbind(name).await {
                tracing::warn!(container = %id, %cause, "something stays in the shared directory");
            }
        }
        for handle in self.devices.handles(id) {
            let released =
                self.devices.release(&*self.machine, DeviceUse::Used(handle), self.timing.request());
            if let Err((_, cause)) = released.await {
                tracing::warn!(container = %id, %cause, "a device stays plugged");
            }
        }
    }

    /// Has the guest be as recorded; what it does not have is stopped.
    async fn assert_phase(&self, container: &mut ContainerRecord) {
        let found = match container.phase {
            Phase::Creating | Phase::Stopped => return,
            Phase::Ready => self.is_there(&container.id).await,
            // Refused when it runs already; else its owner died before it could say so.
            Phase::Running => match self.is_there(&container.id).await {
                Found::Yes => {
                    let id = &container.id;
                    let started = self.ask(self.agent.start_container(id, self.timing.request())).await;
                    let resumed = self.ask(self.agent.resume_container(id, self.timing.request())).await;
                    found(started).and(found(resumed))
                }
                other => other,
            },
            Phase::Paused => {
                found(self.ask(self.agent.pause_container(&container.id, self.timing.request())).await)
            }
        };
        if matches!(found, Found::No) {
            container.phase = Phase::Stopped;
            let lost = || ExitRecord::Lost("the guest no longer has the container".to_owned());
            container.exit.get_or_insert_with(lost);
        }
    }

    async fn is_there(&self, id: &ContainerId) -> Found {
        found(self.ask(self.agent.container_stats(id, self.timing.request())).await)
    }

    /// Unplugs what nobody uses, and forgets what is not there.
    async fn reconcile_devices(&self, is_known: impl Fn(&ContainerId) -> bool) {
        let plugged = match self.machine.plugged(self.timing.request()).await {
            Ok(plugged) => plugged,
            Err(error) => return tracing::warn!(%error, "the machine's devices were not compared"),
        };
        self.devices.forget_all_but(&plugged);
        let is_used = |device: &DeviceId| {
            self.devices.is_used_by(device, &is_known)
                || (self.shares.is_served() && *device == Shares::device())
        };
        let unknown: Vec<DeviceId> = plugged.into_iter().filter(|device| !is_used(device)).collect();
        for device in unknown {
            if let Err(error) = self.machine.unplug(&device, self.timing.request()).await {
                tracing::warn!(%device, %error, "a device that nobody uses stays plugged");
            } else {
                self.devices.forget(&device);
            }
        }
    }
}

impl Found {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Unknown, other) | (other, Self::Unknown) => other,
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }
}

fn found<T>(answer: Result<T, Cause>) -> Found {
    match answer {
        Ok(_) | Err(Cause::Agent(AgentError::Refused { .. })) => Found::Yes,
        Err(Cause::Agent(AgentError::NoSuchContainer { .. }) | Cause::MachineGone(_)) => Found::No,
        Err(_) => Found::Unknown,
    }
}
