//! A container of a sandbox.

use oci_spec::runtime::Spec;
use vc_agent::{Call, ExitStatus, Signal, TerminalSize};
use vc_storage::Layer;
use vc_types::ContainerId;

use crate::error::{Leftover, OperationError, Step};
use crate::owner::Request;
use crate::sandbox::Sandbox;
use crate::state::ContainerStatus;

/// A container that is wanted.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// What it is, by the OCI runtime specification; its `root.path` is not used.
    pub oci: Spec,
    /// The layers of its root file system, the top one first.
    pub layers: Vec<Layer>,
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

/// A handle to a container. Clones are cheap and equal.
///
/// # Errors
/// Of all methods: [`OperationError`] with the step and the cause.
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

    /// Lets its process run.
    ///
    /// # Errors
    /// When the container is not ready, or the guest refuses.
    pub async fn start(&self) -> Result<(), OperationError> {
        self.ask(Call::StartContainer, |id, reply| Request::Start { id, reply }).await
    }

    /// Waits for its process to end. Any number of callers may wait, also after the end.
    ///
    /// Read its output to the end first: an agent may forget it once it has told how the process ended,
    /// as Kata's does. Nor is the end noticed ([`Container::status`]) before somebody waits.
    ///
    /// # Errors
    /// When the machine ends first, or the guest cannot tell.
    pub async fn wait(&self) -> Result<ExitStatus, OperationError> {
        self.ask(Call::WaitProcess, |id, reply| Request::Wait { id, reply }).await
    }

    /// Sends a signal to its process.
    ///
    /// # Errors
    /// When the container is not running, or the guest refuses; a process that has already ended is fine.
    pub async fn signal(&self, signal: Signal) -> Result<(), OperationError> {
        self.ask(Call::SignalProcess, |id, reply| Request::Signal { id, signal, reply }).await
    }

    /// Ends its processes, removes it from the guest and unplugs its disks. Every step is tried; may
    /// be repeated, and then goes on where it failed.
    ///
    /// # Errors
    /// When it is being created or another stop is under way; `left` tells what is not released.
    pub async fn stop(&self) -> Result<Vec<Leftover>, OperationError> {
        self.ask(Call::RemoveContainer, |id, reply| Request::Stop { id, reply }).await
    }

    /// Stops it if need be, and forgets it.
    ///
    /// # Errors
    /// When it runs, or when something of it cannot be released; it is then not forgotten.
    pub async fn delete(&self) -> Result<(), OperationError> {
        self.ask(Call::RemoveContainer, |id, reply| Request::Delete { id, reply }).await
    }

    /// Reads at most `most` bytes of an output; empty means end of file.
    ///
    /// # Errors
    /// When the machine ends, or the guest refuses.
    pub async fn read(&self, stream: Stream, most: u32) -> Result<Vec<u8>, OperationError> {
        self.ask(stream.call(), |id, reply| Request::Read { id, stream, most, reply }).await
    }

    /// Writes some of `data` to its standard input; returns how many bytes were taken.
    ///
    /// # Errors
    /// When nobody reads any more, the machine ends, or the guest refuses.
    pub async fn write_stdin(&self, data: Vec<u8>) -> Result<usize, OperationError> {
        self.ask(Call::WriteStdin, |id, reply| Request::WriteStdin { id, data, reply }).await
    }

    /// Ends its standard input: the process reads what was written, then end of file.
    ///
    /// # Errors
    /// When the machine ends, or the guest refuses.
    pub async fn close_stdin(&self) -> Result<(), OperationError> {
        self.ask(Call::CloseStdin, |id, reply| Request::CloseStdin { id, reply }).await
    }

    /// Tells its terminal its size.
    ///
    /// # Errors
    /// When the machine ends, or the guest refuses.
    pub async fn resize_terminal(&self, size: TerminalSize) -> Result<(), OperationError> {
        self.ask(Call::TtyWinResize, |id, reply| Request::Resize { id, size, reply }).await
    }

    async fn ask<T>(
        &self,
        call: Call,
        request: impl FnOnce(ContainerId, crate::owner::Reply<T>) -> Request,
    ) -> Result<T, OperationError> {
        let step = Step::Container(call, self.id.clone());
        self.sandbox.ask(step, |reply| request(self.id.clone(), reply)).await
    }
}
