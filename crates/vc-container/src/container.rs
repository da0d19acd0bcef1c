//! A container of a sandbox.

use std::sync::Arc;

use oci_spec::runtime::{LinuxResources, Process as ProcessSpec, Spec};
use vc_agent::{
    Call, ContainerStats, Diagnostic, ExecProcess, ExitStatus, ProcessRef, Signal, SignalTarget, TerminalSize,
};
use vc_types::{ContainerId, ExecId};

use crate::error::{Leftover, OperationError, Step};
use crate::guest_spec::guest_process;
use crate::owner::{Reply, Request};
use crate::process::Process;
use crate::sandbox::Sandbox;
use crate::sizing::Size;
use crate::status::ContainerStatus;
use crate::storage::ContainerStorage;

/// A container that is wanted.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// What it is, by the OCI runtime specification; its `root.path` is not used, and of its mounts only what the plan
    /// keeps. What it has no namespace for it shares: `ipc` and `uts` with the guest, `pid` with the sandbox, or else
    /// with its first container.
    pub oci: Spec,
    /// How its root file system and its mounts reach the guest.
    pub storage: ContainerStorage,
}

/// An output of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output; everything, when the process has a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    pub(crate) const fn call(self) -> Call {
        match self {
            Self::Stdout => Call::ReadStdout,
            Self::Stderr => Call::ReadStderr,
        }
    }
}

/// What came of a stop by force.
#[derive(Debug)]
pub struct ForcedStop {
    /// What could not be released as long as the machine ran. If this is not empty, the machine was ended, and
    /// every other container with it.
    pub escalated: Vec<Leftover>,
    /// What is left even so.
    pub left: Vec<Leftover>,
}

/// A handle to a container. Clones are cheap and equal.
///
/// # Errors
/// Of all methods: [`OperationError`] with the step and the cause. [`State::after`](crate::State::after) and
/// [`State::allows`](crate::State::allows) tell what is refused when.
///
/// # Cancel safety
/// Dropping a future of any method abandons the answer; what was asked for still happens. A dropped
/// read may lose the bytes it was about to return.
#[derive(Clone, Debug)]
pub struct Container {
    id: ContainerId,
    sandbox: Sandbox,
}

impl Container {
    pub(crate) fn new(id: ContainerId, sandbox: Sandbox) -> Self {
        Self { id, sandbox }
    }

    /// Its name in the sandbox.
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The container as it is now; `None` once it is deleted. Never waits.
    pub fn status(&self) -> Option<ContainerStatus> {
        self.sandbox.status().containers.get(&self.id).cloned()
    }

    /// Its own process, for everything that can be asked of any process.
    pub fn init(&self) -> Process {
        Process::new(ProcessRef::init(&self.id), self.sandbox.clone(), Arc::default())
    }

    /// A process that was executed in it and is not forgotten, by its name: for whoever recovered the sandbox.
    ///
    /// # Errors
    /// When there is none.
    pub async fn process(&self, exec: ExecId) -> Result<Process, OperationError> {
        let process = ProcessRef { container: self.id.clone(), exec: Some(exec) };
        let known = Arc::new(());
        let handle = Arc::downgrade(&known);
        let step = Step::CheckState(self.id.clone());
        let held = process.clone();
        self.sandbox.ask(step, |reply| Request::Hold { process: held, handle, reply }).await?;
        Ok(Process::new(process, self.sandbox.clone(), known))
    }

    /// Lets its process run.
    ///
    /// # Errors
    /// When the container is not ready, or the guest refuses; then it is stopped.
    pub async fn start(&self) -> Result<(), OperationError> {
        self.ask(Call::StartContainer, |id, reply| Request::Start { id, reply }).await
    }

    /// Runs another process in it, called `exec` from now on. Its name is free again once it has ended.
    ///
    /// # Errors
    /// When the container does not run, has a process of that name, or the guest refuses. A process that
    /// may have come to be is killed.
    pub async fn exec(&self, exec: ExecId, process: ProcessSpec) -> Result<Process, OperationError> {
        let reference = ProcessRef { container: self.id.clone(), exec: Some(exec.clone()) };
        let step = Step::of(Call::ExecProcess, &reference);
        let process = guest_process(process).map_err(|error| OperationError::new(step.clone(), error))?;
        let request = Box::new(ExecProcess { container: self.id.clone(), exec, process });
        let known = Arc::new(());
        let handle = Arc::downgrade(&known);
        self.sandbox.ask(step, |reply| Request::Exec { request, handle, reply }).await?;
        Ok(Process::new(reference, self.sandbox.clone(), known))
    }

    /// Waits for its process to end. Any number of callers may wait, also after the end.
    ///
    /// Read its output to the end first: an agent may forget it once it has told how the process ended,
    /// as Kata's does. Nor is the end noticed ([`Container::status`]) before somebody waits.
    ///
    /// # Errors
    /// When the machine ends first, or the guest cannot tell.
    pub async fn wait(&self) -> Result<ExitStatus, OperationError> {
        self.init().wait().await
    }

    /// Sends a signal to its process.
    ///
    /// # Errors
    /// When the container is not ready, running or paused, or the guest refuses; a process that has already
    /// ended is fine.
    pub async fn signal(&self, signal: Signal) -> Result<(), OperationError> {
        self.init().signal(signal).await
    }

    /// Sends a signal to every process in it.
    ///
    /// # Errors
    /// As of [`Container::signal`].
    pub async fn signal_all(&self, signal: Signal) -> Result<(), OperationError> {
        let all = |id, reply| Request::Signal { target: SignalTarget::All(id), signal, reply };
        self.ask(Call::SignalProcess, all).await
    }

    /// Freezes its processes.
    ///
    /// # Errors
    /// When it does not run, or the guest refuses. If nobody knows whether it was done, it is taken back;
    /// `left` tells when that failed too.
    pub async fn pause(&self) -> Result<(), OperationError> {
        self.ask(Call::PauseContainer, |id, reply| Request::Pause { id, reply }).await
    }

    /// Lets its processes go on.
    ///
    /// # Errors
    /// When it is not paused, or the guest refuses; as of [`Container::pause`].
    pub async fn resume(&self) -> Result<(), OperationError> {
        self.ask(Call::ResumeContainer, |id, reply| Request::Resume { id, reply }).await
    }

    /// Changes its limits: first the machine grows for them as far as it can, then the guest makes the change.
    /// What `resources` does not give stays. Returns what the machine has.
    ///
    /// # Errors
    /// When another operation is under way, or machine or guest refuse. The limits are then as before;
    /// `left` tells when that could not be had.
    pub async fn update(&self, resources: LinuxResources) -> Result<Size, OperationError> {
        let resources = Box::new(resources);
        self.ask(Call::UpdateContainer, |id, reply| Request::Update { id, resources, reply }).await
    }

    /// What it uses, and the traffic of the machine's interfaces. The guest tells it: numbers to show, not to
    /// trust.
    ///
    /// # Errors
    /// When it is stopped, or the guest refuses.
    pub async fn stats(&self) -> Result<ContainerStats, OperationError> {
        self.ask(Call::StatsContainer, |id, reply| Request::Stats { id, reply }).await
    }

    /// What its process left for whoever looks into its end: the file that the annotation
    /// `io.kubernetes.container.terminationMessagePath` of its specification names. Until it is stopped.
    ///
    /// # Errors
    /// When the guest does not have it.
    pub async fn termination_message(&self) -> Result<String, OperationError> {
        let what = Diagnostic::TerminationLog;
        self.ask(Call::GetDiagnosticData, |id, reply| Request::Diagnostic { id, what, reply }).await
    }

    /// Ends its processes, removes it from the guest and gives its devices back. Every step is tried; may
    /// be repeated, and then goes on where it failed. Returns what is left.
    ///
    /// # Errors
    /// When it is being created or another operation on it is under way.
    pub async fn stop(&self) -> Result<Vec<Leftover>, OperationError> {
        self.ask(Call::RemoveContainer, |id, reply| Request::Stop { id, reply }).await
    }

    /// Stops it, and ends the machine if that does not release everything. No error is hidden.
    ///
    /// # Errors
    /// As of [`Container::stop`].
    pub async fn stop_by_force(&self) -> Result<ForcedStop, OperationError> {
        self.ask(Call::RemoveContainer, |id, reply| Request::StopByForce { id, reply }).await
    }

    /// Releases what is left of it, and forgets it.
    ///
    /// # Errors
    /// When it is not stopped, or when something of it cannot be released; it is then not forgotten.
    pub async fn delete(&self) -> Result<(), OperationError> {
        self.ask(Call::RemoveContainer, |id, reply| Request::Delete { id, reply }).await
    }

    /// Reads at most `most` bytes of an output; empty means end of file.
    ///
    /// # Errors
    /// When the machine ends, or the guest refuses.
    pub async fn read(&self, stream: Stream, most: u32) -> Result<Vec<u8>, OperationError> {
        self.init().read(stream, most).await
    }

    /// Writes some of `data` to its standard input; returns how many bytes were taken.
    ///
    /// # Errors
    /// When nobody reads any more, the machine ends, or the guest refuses.
    pub async fn write_stdin(&self, data: Vec<u8>) -> Result<usize, OperationError> {
        self.init().write_stdin(data).await
    }

    /// Ends its standard input: the process reads what was written, then end of file.
    ///
    /// # Errors
    /// When the machine ends, or the guest refuses.
    pub async fn close_stdin(&self) -> Result<(), OperationError> {
        self.init().close_stdin().await
    }

    /// Tells its terminal its size.
    ///
    /// # Errors
    /// When the machine ends, or the guest refuses.
    pub async fn resize_terminal(&self, size: TerminalSize) -> Result<(), OperationError> {
        self.init().resize_terminal(size).await
    }

    async fn ask<T>(
        &self,
        call: Call,
        request: impl FnOnce(ContainerId, Reply<T>) -> Request,
    ) -> Result<T, OperationError> {
        let step = Step::Container(call, self.id.clone());
        self.sandbox.ask(step, |reply| request(self.id.clone(), reply)).await
    }
}
