//! What child tasks do: one function per operation, none touches the owner's state.

use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::Spec;
use tokio::sync::watch;
use tracing::Instrument;
use vc_agent::{
    Agent, AgentError, Call, CreateContainer, ExitStatus, ProcessRef, Signal, SignalTarget, TerminalSize,
};
use vc_hypervisor::{Machine, PlugError};
use vc_storage::{DiskPlug, Packing, PlannedDisk, plan_layers};
use vc_types::{ContainerId, DeviceId};

use super::Reply;
use crate::container::{ContainerSpec, Stream};
use crate::error::{Cause, Leftover, OperationError, Step};
use crate::guest_spec::{GuestFeatures, guest_spec};
use crate::timing::Timing;
use crate::undo::{Held, Undo};

/// How long a broken connection may take to turn out as the end of the machine.
const GRACE: Duration = Duration::from_secs(1);

/// What a child task brings back to the owner.
pub(super) enum Done {
    /// It has answered by itself.
    Call,
    Created {
        id: ContainerId,
        undo: Undo,
        result: Result<(), OperationError>,
        reply: Reply<()>,
    },
    Started {
        id: ContainerId,
        result: Result<(), Cause>,
        reply: Reply<()>,
    },
    Exited {
        id: ContainerId,
        generation: u64,
        result: Result<ExitStatus, Cause>,
    },
    /// What was held is released, but for what `undo` still has and `left` tells.
    Released {
        id: ContainerId,
        undo: Undo,
        left: Vec<Leftover>,
        purpose: Purpose,
    },
}

/// What a release was for, and who waits for it.
pub(super) enum Purpose {
    Stop(Reply<Vec<Leftover>>),
    Delete(Reply<()>),
    /// The start failed, and so the container is of no use.
    FailedStart(OperationError, Reply<()>),
}

/// The machine and the agent in it, for one child task.
pub(super) struct Guest<M, A> {
    pub(super) machine: Arc<M>,
    pub(super) agent: Arc<A>,
    pub(super) timing: Timing,
}

impl<M, A> Clone for Guest<M, A> {
    fn clone(&self) -> Self {
        Self { machine: self.machine.clone(), agent: self.agent.clone(), timing: self.timing }
    }
}

impl<M: Machine, A: Agent> Guest<M, A> {
    /// Creates a container; on error what was done is undone, and the list has what could not be.
    pub(super) async fn create(
        &self,
        id: &ContainerId,
        spec: ContainerSpec,
        disks: &[u32],
    ) -> (Undo, Result<(), OperationError>) {
        let mut undo = Undo::default();
        let mut result = self.create_steps(id, spec, disks, &mut undo).await;
        if let Err(error) = &mut result {
            error.left = undo.run(&*self.machine, &*self.agent, &self.timing).await;
        }
        (undo, result)
    }

    async fn create_steps(
        &self,
        id: &ContainerId,
        spec: ContainerSpec,
        disks: &[u32],
        undo: &mut Undo,
    ) -> Result<(), OperationError> {
        let planning = || Step::Plan(id.clone());
        let packing = Packing::for_layers(spec.layers.len());
        let plan = plan_layers(id, spec.layers, packing);
        let plan = plan.map_err(|error| OperationError::new(planning(), error))?;
        let features = self.features_for(&spec.oci).await?;
        let oci = guest_spec(spec.oci, &plan.rootfs, features)
            .map_err(|error| OperationError::new(planning(), error))?;
        let plugging = self.plug(&plan.disks, disks, undo);
        let plugged = plugging.instrument(tracing::info_span!("plug layers")).await?;
        let storages = plan.storages(&plugged).map_err(|error| OperationError::new(planning(), error))?;
        let request = CreateContainer { storages, ..CreateContainer::new(id.clone(), oci) };
        // Before the call: when it times out, the guest may have the container all the same.
        undo.push(Held::GuestContainer(id.clone()));
        let call = self.agent.create_container(&request, self.timing.request());
        let created = self.ask(call.instrument(tracing::info_span!("create container"))).await;
        created
            .map_err(|cause| OperationError::new(Step::Container(Call::CreateContainer, id.clone()), cause))
    }

    /// What of the guest matters to `spec`; it is asked only when something does.
    async fn features_for(&self, spec: &Spec) -> Result<GuestFeatures, OperationError> {
        if spec.linux().as_ref().is_none_or(|linux| linux.seccomp().is_none()) {
            return Ok(GuestFeatures::default());
        }
        let details = self.ask(self.agent.details(self.timing.request())).await;
        let details =
            details.map_err(|cause| OperationError::new(Step::Guest(Call::GetGuestDetails), cause))?;
        Ok(GuestFeatures { seccomp: details.seccomp })
    }

    async fn plug(
        &self,
        planned: &[PlannedDisk],
        disks: &[u32],
        undo: &mut Undo,
    ) -> Result<Vec<DiskPlug>, OperationError> {
        let mut plugged = Vec::new();
        for (disk, number) in planned.iter().zip(disks) {
            let device: DeviceId = format!("disk{number}").parse().expect("a letter, then few digits");
            let spec = disk.spec(device.clone(), Some(device.as_str().parse().expect("short and plain")));
            // Before the call: when it times out, the disk may be plugged all the same.
            undo.push(Held::Disk(device.clone()));
            let layers = || disk.layers().iter().map(|layer| layer.name().clone()).collect();
            let step = || Step::Plug { device: device.clone(), layers: layers() };
            let location = self.machine.plug(&spec, self.timing.request()).await;
            if let Err(PlugError::Port { .. }) = &location {
                // The name may be that of a disk that somebody else holds.
                undo.forget_last();
            }
            let location = location.map_err(|error| OperationError::new(step(), error))?;
            plugged.push(DiskPlug { id: device, location });
        }
        Ok(plugged)
    }

    pub(super) async fn start(&self, id: &ContainerId) -> Result<(), Cause> {
        let call = self.agent.start_container(id, self.timing.request());
        self.ask(call.instrument(tracing::info_span!("start container"))).await
    }

    pub(super) async fn wait(&self, id: &ContainerId) -> Result<ExitStatus, Cause> {
        self.ask(self.agent.wait(&ProcessRef::init(id))).await
    }

    /// Kills every process of the container, and waits for its init process to end if that was
    /// running. Failures are only told to the log: the guest kills what is left when it removes the
    /// container.
    pub(super) async fn kill(&self, id: &ContainerId, running: Option<watch::Receiver<bool>>) {
        let target = SignalTarget::All(id.clone());
        let killed = self.ask(self.agent.signal(&target, Signal::KILL, self.timing.undo())).await;
        match killed {
            Ok(()) | Err(Cause::Agent(AgentError::AlreadyGone)) => {}
            Err(cause) => tracing::warn!(container = %id, %cause, "could not kill before the removal"),
        }
        let Some(mut ended) = running else { return };
        let end = ended.wait_for(|ended| *ended);
        if tokio::time::timeout(self.timing.kill, end).await.is_err() {
            tracing::warn!(container = %id, "no exit status in time after SIGKILL");
        }
    }

    pub(super) async fn signal(self, id: ContainerId, signal: Signal) -> Result<(), Cause> {
        let target = SignalTarget::Process(ProcessRef::init(&id));
        match self.ask(self.agent.signal(&target, signal, self.timing.request())).await {
            Err(Cause::Agent(AgentError::AlreadyGone)) => Ok(()),
            other => other,
        }
    }

    pub(super) async fn read(self, id: ContainerId, stream: Stream, most: u32) -> Result<Vec<u8>, Cause> {
        let process = ProcessRef::init(&id);
        match stream {
            Stream::Stdout => self.ask(self.agent.read_stdout(&process, most)).await,
            Stream::Stderr => self.ask(self.agent.read_stderr(&process, most)).await,
        }
    }

    pub(super) async fn write_stdin(self, id: ContainerId, data: Vec<u8>) -> Result<usize, Cause> {
        self.ask(self.agent.write_stdin(&ProcessRef::init(&id), &data)).await
    }

    pub(super) async fn close_stdin(self, id: ContainerId) -> Result<(), Cause> {
        self.ask(self.agent.close_stdin(&ProcessRef::init(&id), self.timing.request())).await
    }

    pub(super) async fn resize(self, id: ContainerId, size: TerminalSize) -> Result<(), Cause> {
        self.ask(self.agent.resize_terminal(&ProcessRef::init(&id), size, self.timing.request())).await
    }

    /// Waits for the agent's answer or the end of the machine, which is the better answer when the
    /// connection broke.
    async fn ask<T>(&self, call: impl Future<Output = Result<T, AgentError>>) -> Result<T, Cause> {
        let answer = tokio::select! {
            biased;
            answer = call => answer,
            exit = self.machine.exited() => return Err(Cause::MachineGone(exit)),
        };
        let Err(error @ AgentError::Disconnected { .. }) = answer else { return Ok(answer?) };
        match tokio::time::timeout(GRACE, self.machine.exited()).await {
            Ok(exit) => Err(Cause::MachineGone(exit)),
            Err(_) => Err(error.into()),
        }
    }
}
