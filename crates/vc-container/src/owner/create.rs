//! Creating a container: plan, size, disks, guest; on an error all of it is undone.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Spec};
use vc_agent::{Agent, AgentError, Call, CreateContainer, Device, Feature, GuestDetails};
use vc_hypervisor::Machine;
use vc_storage::{DiskPlan, StoragePlan};
use vc_types::{ContainerId, HostPath};

use super::ghost::Ghost;
use super::record::Record;
use super::{Owner, Reply, refuse};
use crate::ahead::Ahead;
use crate::annotations;
use crate::container::ContainerSpec;
use crate::error::{Cause, Leftover, OperationError, Step};
use crate::guest::Guest;
use crate::guest_spec::{GuestFeatures, guest_spec};
use crate::passing::{PassError, Passed};
use crate::plug::Plugs;
use crate::record::{ContainerRecord, FollowRecord, Phase};
use crate::state::Op;
use crate::storage::{
    ContainerStorage, CopyFailed, Following, VolumeUse, Watch, apply, copy, make_image, settled_copy,
};
use crate::timing::Budget;
use crate::undo::{Held, Released, Undo};

impl<M: Machine, A: Agent> Owner<M, A> {
    pub(super) fn create(&mut self, id: ContainerId, spec: Box<ContainerSpec>, reply: Reply<()>) {
        let refusal = match self.containers.contains_key(&id) {
            _ if self.stopping.is_some() => Some(Cause::Stopping),
            true => Some(Cause::Exists),
            false if self.is_haunted(&Ghost::Container(id.clone())) => Some(Cause::Busy),
            false => None,
        };
        if let Some(cause) = refusal {
            return refuse(reply, Step::CheckState(id), cause);
        }
        let mut spec = spec;
        if let Err(error) = annotations::apply(&mut spec.oci) {
            return refuse(reply, Step::Plan(id), error.into());
        }
        let resources = resources_of(&spec);
        let generation = self.next_generation();
        self.containers.insert(id.clone(), Record::creating(generation, resources));
        let guest = self.guest.clone();
        let ahead = self.ahead.take_if(|ahead| ahead.container == id);
        self.spawn(async move {
            let creation = guest.create(&id, spec, ahead).await;
            move |owner: &mut Self| owner.created(&id, creation, reply)
        });
    }

    fn created(&mut self, id: &ContainerId, creation: Creation, reply: Reply<()>) {
        let Creation { undo, result, ghost } = creation;
        let machine_exit = self.machine_exit.clone();
        let record = self.no_longer_busy(id);
        record.held = undo;
        match &result {
            Ok(()) => record.go(Op::Created),
            Err(_) if record.held.is_empty() => drop(self.containers.remove(id)),
            // What could not be undone is held by a container that never was; it can be stopped again.
            Err(_) => record.process_ended(id, Err("it never ran".to_owned())),
        }
        // The machine may have ended while the child task had the undo list.
        if let (Some(exit), Some(record)) = (machine_exit, self.containers.get_mut(id)) {
            record.machine_ended(id, &exit);
        }
        if ghost {
            self.look_for_ghost(Ghost::Container(id.clone()));
        }
        let _ = reply.send(result);
    }
}

/// What came of a creation.
struct Creation {
    /// What the container holds.
    undo: Undo,
    result: Result<(), OperationError>,
    /// Whether the guest may yet make it, late.
    ghost: bool,
}

impl<M: Machine, A: Agent> Guest<M, A> {
    /// Creates a container; on error what was done is undone, and the list has what could not be.
    async fn create(&self, id: &ContainerId, spec: Box<ContainerSpec>, ahead: Option<Ahead>) -> Creation {
        let (mut undo, before) = match ahead {
            Some(ahead) => (ahead.undo, ahead.result),
            None => (Undo::default(), Ok(())),
        };
        let span = tracing::info_span!("create", container = %id);
        let steps = async {
            before?;
            self.create_steps(id, spec, &mut undo, Budget::of(self.timing.create)).await
        };
        match self.metrics.step("create", span, steps).await {
            Ok(()) => Creation { undo, result: Ok(()), ghost: false },
            Err(mut error) => {
                let span = tracing::info_span!("undo", container = %id);
                let undone = self.metrics.step("undo", span, undo.run(self, self.timing.undo())).await;
                let (Ok(Released { left, ghost }) | Err(Released { left, ghost })) = undone;
                error.left = left;
                let noted = self.note(|record| match record.container(id) {
                    Some(known) if !undo.is_empty() => known.phase = Phase::Stopped,
                    _ => record.forget(id),
                });
                // A record that is behind has a container that is being created, which is no one's.
                if let Err(cause) = noted.await {
                    error.left.push(Leftover { step: Step::Record, cause });
                }
                Creation { undo, result: Err(error), ghost }
            }
        }
    }

    async fn create_steps(
        &self,
        id: &ContainerId,
        spec: Box<ContainerSpec>,
        undo: &mut Undo,
        budget: Budget,
    ) -> Result<(), OperationError> {
        let unrecorded = |cause| OperationError::new(Step::Record, cause);
        let unplanned = |cause: Cause| OperationError::new(Step::Plan(id.clone()), cause);
        check(id, &spec.storage.plan).map_err(unplanned)?;
        self.shares.check(spec.storage.plan.shared_fs()).map_err(unplanned)?;
        let mut spec = spec;
        self.shares.number(&mut spec.storage.plan);
        let new = Box::new(new_record(id, &spec));
        let begin = self.note(|record| {
            record.containers.push(*new);
            record.sharers = self.shares.sharers();
        });
        begin.await.map_err(unrecorded)?;
        self.claim_volumes(&spec.storage, undo).await?;
        let passed = self.passing.plan(&spec.oci).map_err(|error| unplanned(error.into()))?;
        let needed = spec.storage.plan.features();
        let details = self.details_for(&spec.oci, &passed, &needed, budget).await?;
        if let Some(missing) = needed.into_iter().find(|feature| !details.has(*feature)) {
            return Err(unplanned(Cause::NoFeature(missing.name())));
        }
        let shared_pid_namespace = self.shared_pid_namespace || !has_pid_namespace(&spec.oci);
        let ContainerSpec { oci, storage: ContainerStorage { mut plan, images, .. } } = *spec;
        let oci = self.spec_for_guest(oci, &plan, (&passed, &details)).map_err(unplanned)?;
        let linux = oci.linux().as_ref();
        let resources = linux.and_then(|linux| linux.resources().clone()).unwrap_or_default();
        undo.push(Held::Size(id.clone()));
        let size = self.sizing.claim(self, id, resources, budget);
        size.await.map_err(|cause| OperationError::new(Step::ResizeMachine, cause))?;
        make_images(&mut plan, undo, budget).await?;
        let plugs = Plugs { machine: &*self.machine, devices: &self.devices, container: id, budget };
        let plugging = plugs.disks((&plan.disks, &images), undo);
        let span = tracing::info_span!("plug layers");
        let plugged = self.metrics.step("plug layers", span, plugging).await?;
        let (oci, devices) = self.pass(&plugs, oci, (&passed, &details.devices), undo).await?;
        self.share(&plan, undo, budget).await?;
        let storages = plan.resolve(&plugged).map_err(|error| unplanned(error.into()))?;
        let request = CreateContainer {
            storages,
            devices,
            shared_pid_namespace,
            ..CreateContainer::new(id.clone(), *oci)
        };
        // Before the call: when it times out, the guest may have the container all the same.
        undo.push(Held::GuestContainer { id: id.clone(), certain: false });
        let call = self.ask(self.agent.create_container(&request, budget.deadline()));
        let created = self.metrics.step("create container", tracing::info_span!("create container"), call);
        match created.await {
            Ok(()) => {
                undo.confirm_container();
                let ready = self.note_container(id, |known| known.phase = Phase::Ready);
                ready.await.map_err(unrecorded)
            }
            Err(cause) => {
                if is_without_container(&cause) {
                    undo.pop();
                }
                Err(OperationError::new(Step::Container(Call::CreateContainer, id.clone()), cause))
            }
        }
    }

    /// The specification that the guest gets, but for what tells it of devices of the host.
    fn spec_for_guest(
        &self,
        oci: Spec,
        plan: &StoragePlan,
        (passed, details): (&Passed, &GuestDetails),
    ) -> Result<Box<Spec>, Cause> {
        let oci = self.passing.without_nodes(oci, passed);
        let oci = apply(oci, &plan.mounts)?;
        let features = GuestFeatures { seccomp: details.seccomp };
        Ok(Box::new(guest_spec(oci, &plan.rootfs, features)?))
    }

    /// What the guest tells of itself; it is asked only when something in `spec` depends on it.
    async fn details_for(
        &self,
        spec: &Spec,
        passed: &Passed,
        features: &BTreeSet<Feature>,
        budget: Budget,
    ) -> Result<GuestDetails, OperationError> {
        let has_filter = spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
        if !has_filter && passed.plan.functions.is_empty() && features.is_empty() {
            return Ok(GuestDetails::default());
        }
        let details = self.ask(self.agent.details(budget.deadline())).await;
        details.map_err(|cause| OperationError::new(Step::Guest(Call::GetGuestDetails), cause))
    }

    /// Plugs the devices of the host that it asks for. Gives the specification that tells it of them, and what tells
    /// the agent.
    async fn pass(
        &self,
        plugs: &Plugs<'_, M>,
        oci: Box<Spec>,
        (passed, handlers): (&Passed, &[String]),
        undo: &mut Undo,
    ) -> Result<(Box<Spec>, Vec<Device>), OperationError> {
        let failed = |error: PassError| OperationError::new(Step::Plan(plugs.container.clone()), error);
        let located = plugs.functions(&passed.plan.functions, undo).await?;
        let oci = Box::new(self.passing.annotate(*oci, passed, &self.devices).map_err(failed)?);
        let devices = self.passing.for_agent(passed, &located, handlers).map_err(failed)?;
        Ok((oci, devices))
    }

    /// Tells CSI drivers of the sandbox that has their volumes.
    async fn claim_volumes(
        &self,
        ContainerStorage { plan, direct_volumes, .. }: &ContainerStorage,
        undo: &mut Undo,
    ) -> Result<(), OperationError> {
        let store = direct_volumes.as_ref().filter(|_| !plan.direct_volumes.is_empty());
        let Some(store) = store else { return Ok(()) };
        let of_store = |volume: &HostPath| VolumeUse { store: store.root().into(), volume: volume.clone() };
        let volumes: Vec<VolumeUse> = plan.direct_volumes.iter().map(of_store).collect();
        for volume in &volumes {
            self.volumes.claim(volume.clone());
            undo.push(Held::Volume(volume.clone()));
        }
        // Before they are told: the next owner takes back what this one may have told.
        let noted = self.note(|record| record.volumes = self.volumes.all()).await;
        noted.map_err(|cause| OperationError::new(Step::Record, cause))?;
        for volume in &volumes {
            let told = self.volumes.tell(volume).await;
            told.map_err(|cause| OperationError::new(Step::Volume(volume.volume.clone()), cause))?;
        }
        Ok(())
    }

    /// Shares and copies what the plan has for it.
    async fn share(&self, plan: &StoragePlan, undo: &mut Undo, budget: Budget) -> Result<(), OperationError> {
        for share in &plan.shares {
            // Before the bind: a part of it may be there when it fails.
            undo.push(Held::Share(share.name.clone()));
            self.shares.bind(&*self.machine, share, budget.deadline()).await?;
        }
        if let Some(service) = plan.services.first() {
            // Before it is asked: without an answer, it may have done it.
            undo.push(Held::Rafs(plan.container.clone(), plan.number));
            let image = (&plan.container, plan.number);
            self.shares.mount(&*self.machine, (image, service), budget.deadline()).await?;
        }
        for planned in &plan.copies {
            let failed = |error: CopyFailed| OperationError::new(Step::Copy(planned.source.clone()), error);
            if !planned.watched {
                copy(&*self.agent, planned, budget.deadline()).await.map_err(failed)?;
                continue;
            }
            // Before the copy: what is replaced after that is copied again.
            let watch = Watch::of(&planned.source).await.map_err(failed)?;
            settled_copy(&*self.agent, planned, || budget.deadline()).await.map_err(failed)?;
            let agent = self.agent.clone();
            let following = Following::start(agent, planned.clone(), watch, self.timing, false);
            undo.push(Held::Follow(following));
        }
        Ok(())
    }
}

/// Makes the images of a plan, which then knows what they are.
async fn make_images(plan: &mut StoragePlan, undo: &mut Undo, budget: Budget) -> Result<(), OperationError> {
    for image in plan.images.clone() {
        let made = make_image(&image, budget.deadline()).await;
        let file = made.map_err(|error| OperationError::new(Step::MakeImage(image.path.clone()), error))?;
        undo.push(Held::Image(image.path.clone()));
        plan.made(&image.path, file);
    }
    Ok(())
}

/// Whether the plan is for this container, and everything in it can be done.
fn check(id: &ContainerId, plan: &StoragePlan) -> Result<(), Cause> {
    if plan.container != *id {
        return Err(Cause::OtherContainer(plan.container.clone()));
    }
    Ok(())
}

/// The container as it is written down before anything is done for it.
fn new_record(id: &ContainerId, spec: &ContainerSpec) -> ContainerRecord {
    let disks = spec.storage.plan.disks.iter().filter(|disk| disk.holds_layers());
    ContainerRecord {
        id: id.clone(),
        phase: Phase::Creating,
        oci: spec.oci.clone(),
        layers: disks.flat_map(DiskPlan::paths).collect(),
        follows: spec.storage.plan.copies.iter().filter_map(FollowRecord::of).collect(),
        rafs: (!spec.storage.plan.services.is_empty()).then_some(spec.storage.plan.number),
        shares: spec.storage.plan.shares.iter().map(|share| share.name.clone()).collect(),
        resources: resources_of(spec),
        exit: None,
        processes: BTreeMap::new(),
        oom_kills: 0,
    }
}

/// Whether the container is to have pids of its own.
fn has_pid_namespace(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|namespace| namespace.typ() == LinuxNamespaceType::Pid)
}

fn resources_of(spec: &ContainerSpec) -> LinuxResources {
    let linux = spec.oci.linux().as_ref();
    linux.and_then(|linux| linux.resources().clone()).unwrap_or_default()
}

/// Whether the guest has said, or was never told, so that it has no such container and will have none.
fn is_without_container(cause: &Cause) -> bool {
    match cause {
        // Another one is there, which can only be of an earlier call of ours.
        Cause::Agent(AgentError::ContainerExists { .. }) => false,
        cause => !cause.is_uncertain(),
    }
}

#[cfg(test)]
mod tests {
    use vc_agent::fake::FakeAgent;
    use vc_hypervisor::fake::FakeMachine;

    use super::*;

    /// The most that a creation may occupy while it waits, in bytes. There is one for each container that is being
    /// created, and where it was stays with the allocator.
    const MOST: usize = 16 << 10;

    #[test]
    fn a_creation_is_small() {
        fn size<'a, F>(
            _: impl FnOnce(
                &'a Guest<FakeMachine, FakeAgent>,
                &'a ContainerId,
                Box<ContainerSpec>,
                Option<Ahead>,
            ) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let size = size(Guest::create);
        assert!(size < MOST, "{size} bytes");
    }
}
