//! A sandbox: one machine and the containers in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::Instrument;
use vc_agent::{Agent, Call, Connect, CreateSandbox, Guest as _, VolumeStats};
use vc_device::DeviceIdentity;
use vc_hypervisor::{Hypervisor, Machine, MachineExit, MachineSpec, Statistics};
use vc_types::{ContainerId, Deadline, HostPath, SandboxId};

use crate::ahead::{self, Ahead};
use crate::container::{Container, ContainerSpec};
use crate::devices::Devices;
use crate::error::{Cause, Leftover, OperationError, Step};
use crate::guest::Guest;
use crate::ledger::Ledger;
use crate::metrics::{Metrics, StepMetrics};
use crate::owner::{Owner, Record, Request};
use crate::passing::Passing;
use crate::record::{MachineRecord, SandboxRecord};
use crate::runtime_dir::RuntimeDir;
use crate::sizing::Sizing;
use crate::status::SandboxStatus;
use crate::storage::{ContainerStorage, Shares, Sharing, Volumes};
use crate::store::{Store, StoreError};
use crate::timing::{Budget, Timing};

/// How many requests may wait for the owner; it never works on one, so this is never long.
const QUEUE: usize = 32;

/// A sandbox that is wanted.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    /// Its machine. `runtime_dir` must not exist yet, its parent must; the sandbox makes and removes it.
    pub machine: MachineSpec,
    /// The guest's host name.
    pub hostname: String,
    /// How long each operation may take.
    pub timing: Timing,
    /// Whether its containers see each other's processes.
    pub shared_pid_namespace: bool,
    /// Where its record is kept, so that [`Sandbox::recover`] can go on when its owner dies; the machine
    /// then outlives its owner. The directory must not exist yet, its parent must; the sandbox makes and
    /// removes it. None if the machine is to die with its owner.
    pub state_dir: Option<HostPath>,
    /// How directories of the host are shared with its containers.
    pub sharing: Sharing,
    /// How devices of the host are passed to its containers.
    pub passing: Passing,
    /// What a container needs that is sure to be created: its disks are plugged and its directories get served
    /// while the guest boots. It holds them from its creation on, which fails where they cannot be had; no other
    /// container is in its way.
    pub ahead: Option<ContainerStorage>,
}

impl SandboxSpec {
    /// A sandbox with this machine, whose host name is its id. Every field may be changed.
    pub fn new(machine: MachineSpec) -> Self {
        let hostname = machine.id.to_string();
        Self {
            machine,
            hostname,
            timing: Timing::default(),
            shared_pid_namespace: false,
            state_dir: None,
            sharing: Sharing::default(),
            passing: Passing::default(),
            ahead: None,
        }
    }
}

/// A handle to a running sandbox. Clones are cheap and equal.
///
/// When the last handle (containers included) is dropped, the machine is ended by force.
///
/// # Cancel safety
/// Dropping a future of any method abandons the answer; what was asked for still happens.
#[derive(Clone, Debug)]
pub struct Sandbox {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<SandboxStatus>,
    metrics: Metrics,
    devices: Arc<Devices>,
}

impl Sandbox {
    /// Launches a machine and prepares its guest.
    ///
    /// # Errors
    /// [`OperationError`] with the step that failed; nothing is left then but what the error lists.
    ///
    /// # Cancel safety
    /// Dropping the future ends the machine by force and removes what it left on the host.
    pub async fn create<H, C>(
        hypervisor: &H,
        connector: &C,
        spec: SandboxSpec,
    ) -> Result<Self, OperationError>
    where
        H: Hypervisor,
        C: Connect,
    {
        let mut spec = spec;
        spec.machine.outlives_owner |= spec.state_dir.is_some();
        let metrics = Metrics::default();
        let ledger =
            open_ledger(&spec, &metrics).map_err(|error| OperationError::new(Step::Record, error))?;
        let mut unfinished = Unfinished(Some(ledger.clone()));
        let created = Self::create_recorded(hypervisor, connector, &spec, ledger, metrics).await;
        // As long as something is left, the record says so.
        if created.as_ref().is_err_and(|error| error.left.is_empty()) {
            return created;
        }
        unfinished.0 = None;
        created
    }

    async fn create_recorded<H, C>(
        hypervisor: &H,
        connector: &C,
        spec: &SandboxSpec,
        ledger: Ledger,
        metrics: Metrics,
    ) -> Result<Self, OperationError>
    where
        H: Hypervisor,
        C: Connect,
    {
        let dir = spec.machine.runtime_dir.clone();
        let dir = RuntimeDir::create(&dir)
            .map_err(|error| OperationError::new(Step::MakeRuntimeDir(dir), error))?;
        let launch = hypervisor.launch(&spec.machine, Deadline::after(spec.timing.launch));
        let span = tracing::info_span!("launch", sandbox = %spec.machine.id);
        let launched = metrics.step("launch", span, launch).await;
        let machine = launched.map_err(|error| OperationError::new(Step::Launch, error))?;
        let shares = Shares::new(&spec.machine.runtime_dir, spec.sharing.clone(), ledger.clone());
        let devices = Devices::default();
        let boot = prepare_guest(&machine, connector, spec, &metrics, &ledger);
        let ahead = async {
            let Some(storage) = &spec.ahead else { return Ok(None) };
            let budget = Budget::of(spec.timing.boot);
            Ok(Some(ahead::prepare(storage, &machine, (&devices, &shares), &metrics, budget).await))
        };
        let ready = async {
            let ready = futures::future::try_join(boot, ahead).await?;
            // Only now: whoever takes the sandbox over must know of all that is plugged.
            let noted = ledger.write(|record| {
                record.devices = devices.snapshot();
                record.handle = Some(machine.handle());
                record.prepared = true;
            });
            noted.await.map_err(|cause| OperationError::new(Step::Record, cause))?;
            Ok::<_, OperationError>(ready)
        };
        match ready.await {
            Ok((agent, ahead)) => {
                let guest = Guest {
                    machine: Arc::new(machine),
                    agent: Arc::new(agent),
                    devices: Arc::new(devices),
                    shares: Arc::new(shares),
                    volumes: Arc::new(Volumes::new(spec.machine.id.clone(), Vec::new())),
                    sizing: Arc::new(Sizing::new(&spec.machine)),
                    metrics,
                    ledger,
                    timing: spec.timing,
                    shared_pid_namespace: spec.shared_pid_namespace,
                    passing: Arc::new(spec.passing.clone()),
                };
                Ok(Self::of(guest, dir, (BTreeMap::new(), ahead), &spec.machine.id))
            }
            Err(mut error) => {
                error.left = end(&machine, &shares, dir, &spec.timing).await;
                Err(error)
            }
        }
    }

    /// The sandbox of a machine and guest that are ready, and its owner.
    pub(crate) fn of<M: Machine, A: Agent>(
        guest: Guest<M, A>,
        dir: RuntimeDir,
        (containers, ahead): (BTreeMap<ContainerId, Record>, Option<Ahead>),
        id: &SandboxId,
    ) -> Self {
        let (requests, receiver) = mpsc::channel(QUEUE);
        let (publisher, status) = watch::channel(SandboxStatus::default());
        let (metrics, devices) = (guest.metrics.clone(), guest.devices.clone());
        let owner = Owner::new(guest, dir, (containers, ahead), publisher);
        owner.publish();
        tokio::spawn(owner.run(receiver).instrument(tracing::info_span!("sandbox", %id)));
        Self { requests, status, metrics, devices }
    }

    /// Creates a container; its process waits for [`Container::start`].
    ///
    /// # Errors
    /// [`OperationError`] with the step that failed; nothing is left then but what the error lists.
    pub async fn create_container(
        &self,
        id: ContainerId,
        spec: ContainerSpec,
    ) -> Result<Container, OperationError> {
        let step = Step::Plan(id.clone());
        self.ask(step, |reply| Request::Create { id: id.clone(), spec: Box::new(spec), reply }).await?;
        Ok(Container::new(id, self.clone()))
    }

    /// A container that there is, by its name.
    pub fn container(&self, id: &ContainerId) -> Option<Container> {
        let known = self.status.borrow().containers.contains_key(id);
        known.then(|| Container::new(id.clone(), self.clone()))
    }

    /// The sandbox as it is now. Never waits.
    pub fn status(&self) -> SandboxStatus {
        self.status.borrow().clone()
    }

    /// Waits until the status differs from what this handle was told last; false when it never will again.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn status_changed(&mut self) -> bool {
        self.status.changed().await.is_ok()
    }

    /// What the machine uses on the host.
    ///
    /// # Errors
    /// [`OperationError`] when the machine has ended or does not answer.
    pub async fn stats(&self) -> Result<Statistics, OperationError> {
        self.ask(Step::InspectMachine, |reply| Request::MachineStats { reply }).await
    }

    /// How full a volume of a CSI driver is, by the path that its driver has it by. The guest tells it: numbers to
    /// show, not to trust.
    ///
    /// # Errors
    /// [`OperationError`] when the sandbox has none by that path ([`Cause::NoSuchVolume`]), or the guest does not
    /// answer.
    pub async fn volume_stats(&self, volume: HostPath) -> Result<VolumeStats, OperationError> {
        let step = Step::InspectVolume(volume.clone());
        self.ask(step, |reply| Request::VolumeStats { volume, reply }).await
    }

    /// Lets a volume of a CSI driver grow to `bytes`, once its disk has grown on the host: the machine is told of the
    /// disk's new size, then the guest has the file system grow.
    ///
    /// # Errors
    /// [`OperationError`] when the sandbox has none by that path ([`Cause::NoSuchVolume`]), its disk is smaller
    /// ([`Cause::SmallDisk`]), or hypervisor or guest refuse. May be called again.
    pub async fn resize_volume(&self, volume: HostPath, bytes: u64) -> Result<(), OperationError> {
        let step = Step::GrowVolume(volume.clone());
        self.ask(step, |reply| Request::ResizeVolume { volume, bytes, reply }).await
    }

    /// What of the host the machine has plugged now, for a plan of another container of this sandbox
    /// ([`Surroundings::held`](vc_storage::Surroundings::held)). Never waits.
    pub fn held(&self) -> Vec<DeviceIdentity> {
        self.devices.identities()
    }

    /// How often each kind of step was made so far, and how long it took. Never waits.
    pub fn metrics(&self) -> BTreeMap<&'static str, StepMetrics> {
        self.metrics.snapshot()
    }

    /// Resolves when the machine has ended, for whatever reason.
    pub async fn machine_exited(&self) -> Option<MachineExit> {
        let mut status = self.status.clone();
        let ended = status.wait_for(|status| status.machine_exit.is_some()).await;
        ended.ok().and_then(|status| status.machine_exit.clone())
    }

    /// Has the guest end every container and let go of its disks, ends the machine, and removes the sandbox's
    /// directory. Every step is tried; may be repeated.
    ///
    /// # Errors
    /// What is left. The machine's end is tried by force before it is reported as left.
    pub async fn stop(&self) -> Result<(), Vec<Leftover>> {
        let (reply, stopped) = oneshot::channel();
        let asked = self.requests.send(Request::StopSandbox { reply }).await;
        let answer = if asked.is_ok() { stopped.await.ok() } else { None };
        match answer {
            Some(left) if left.is_empty() => Ok(()),
            Some(left) => Err(left),
            // The owner has ended, as it does once everything is stopped.
            None if self.status().stopped => Ok(()),
            None => Err(vec![Leftover { step: Step::StopMachine, cause: Cause::SandboxGone }]),
        }
    }

    /// Gives the sandbox up without ending anything, for another process to [recover](Self::recover) it: all
    /// handles are useless then. Only for one with a state directory; any other is ended, as if its last handle
    /// were dropped. What is under way is abandoned.
    pub async fn leave(&self) {
        let (reply, left) = oneshot::channel();
        if self.requests.send(Request::Leave { reply }).await.is_ok() {
            // Without an answer the owner is gone, which is what was wanted.
            let _ = left.await;
        }
    }

    /// Ends the machine at once, whatever its guest is doing. [`Sandbox::stop`] is still to be called.
    pub async fn kill_machine(&self) {
        let (reply, killed) = oneshot::channel();
        if self.requests.send(Request::KillMachine { reply }).await.is_ok() {
            // Without an answer the owner, and with it the machine, is gone.
            let _ = killed.await;
        }
    }

    /// Sends a request to the owner and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        step: Step,
        request: impl FnOnce(oneshot::Sender<Result<T, OperationError>>) -> Request,
    ) -> Result<T, OperationError> {
        let gone = |_| OperationError::new(step.clone(), Cause::SandboxGone);
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| gone(()))?;
        answer.await.map_err(|_| gone(()))?
    }
}

async fn prepare_guest<M: Machine, C: Connect>(
    machine: &M,
    connector: &C,
    spec: &SandboxSpec,
    metrics: &Metrics,
    ledger: &Ledger,
) -> Result<C::Agent, OperationError> {
    let unrecorded = |cause| OperationError::new(Step::Record, cause);
    let launched = ledger.write(|record| record.handle = Some(machine.handle()));
    launched.await.map_err(unrecorded)?;
    let died = |step, exit| OperationError::new(step, Cause::MachineGone(exit));
    let connect = connector.connect(machine.agent_address(), Deadline::after(spec.timing.boot));
    let agent = tokio::select! {
        biased;
        exit = machine.exited() => return Err(died(Step::Connect, exit)),
        agent = metrics.step("boot", tracing::info_span!("boot"), connect) => agent,
    };
    let agent = agent.map_err(|source| {
        let console = machine.console_tail();
        OperationError::new(Step::Connect, Cause::AgentSilent { console, source })
    })?;
    let request = CreateSandbox {
        hostname: spec.hostname.clone(),
        shared_pid_namespace: spec.shared_pid_namespace,
        ..CreateSandbox::new(spec.machine.id.clone())
    };
    let step = Step::Guest(Call::CreateSandbox);
    let prepare = agent.create_sandbox(&request, spec.timing.request());
    let prepared = tokio::select! {
        biased;
        exit = machine.exited() => return Err(died(step, exit)),
        prepared = metrics.step("prepare guest", tracing::info_span!("prepare guest"), prepare) => prepared,
    };
    prepared.map_err(|error| OperationError::new(step, error))?;
    Ok(agent)
}

/// The record of a sandbox that has come to nothing when this value is dropped.
struct Unfinished(Option<Ledger>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(ledger) = &self.0
            && let Err(error) = ledger.remove()
        {
            tracing::warn!(%error, "the record of a sandbox that was not made stays");
        }
    }
}

/// The record of a sandbox that is about to be made; nothing is recorded without a place for it.
fn open_ledger(spec: &SandboxSpec, metrics: &Metrics) -> Result<Ledger, StoreError> {
    let Some(dir) = &spec.state_dir else { return Ok(Ledger::default()) };
    let machine = MachineRecord::from(&spec.machine);
    let mut record = SandboxRecord::new(machine, spec.hostname.clone(), spec.shared_pid_namespace);
    record.passing = spec.passing.clone();
    record.sharing = spec.sharing.clone();
    let store = Store::create(dir)?;
    match store.write(&record) {
        Ok(()) => Ok(Ledger::new(store, record, metrics.clone())),
        Err(error) => {
            // The first error counts; what is left is an empty directory.
            let _ = store.remove();
            Err(error)
        }
    }
}

/// Ends the machine by force and removes what is shared and the directory; what fails is told.
pub(crate) async fn end(
    machine: &impl Machine,
    shares: &Shares,
    mut dir: RuntimeDir,
    timing: &Timing,
) -> Vec<Leftover> {
    let budget = timing.undo();
    // The shared directory goes before the sandbox's own, in which it is, and after the guest that uses it.
    let mut left = match machine.stop(budget.deadline()).await {
        Ok(_) => shares.end(budget.deadline()).await,
        Err(error) => vec![Leftover { step: Step::StopMachine, cause: error.into() }],
    };
    if let Err(error) = dir.remove() {
        left.push(Leftover { step: Step::RemoveRuntimeDir(dir.path().clone()), cause: error.into() });
    }
    left
}
