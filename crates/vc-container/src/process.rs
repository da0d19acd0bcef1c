//! A process of a container: its own, or one that was executed in it.

use std::sync::Arc;

use vc_agent::{Call, ExitStatus, ProcessRef, Signal, SignalTarget, TerminalSize};

use crate::container::Stream;
use crate::error::{OperationError, Step};
use crate::owner::{Reply, Request};
use crate::sandbox::Sandbox;

/// A handle to a process. Clones are cheap and equal.
///
/// An executed process that has ended is forgotten when nobody has a handle to it any more; one that runs
/// goes on.
///
/// # Errors
/// Of all methods: [`OperationError`] with the step and the cause.
///
/// # Cancel safety
/// As of [`Container`](crate::Container).
#[derive(Clone, Debug)]
pub struct Process {
    reference: ProcessRef,
    sandbox: Sandbox,
    /// The owner remembers the process while this lives.
    _known: Arc<()>,
}

impl Process {
    pub(crate) fn new(reference: ProcessRef, sandbox: Sandbox, known: Arc<()>) -> Self {
        Self { reference, sandbox, _known: known }
    }

    /// Which process of which container it is.
    pub fn reference(&self) -> &ProcessRef {
        &self.reference
    }

    /// Waits for it to end. Any number of callers may wait, also after the end.
    ///
    /// Read its output to the end first: an agent may forget it once it has told how the process ended.
    ///
    /// # Errors
    /// When the machine ends first, or the guest cannot tell.
    pub async fn wait(&self) -> Result<ExitStatus, OperationError> {
        self.ask(Call::WaitProcess, |process, reply| Request::Wait { process, reply }).await
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When its container is not ready, running or paused, or the guest refuses; a process that has already
    /// ended is fine.
    pub async fn signal(&self, signal: Signal) -> Result<(), OperationError> {
        let one = |process, reply| Request::Signal { target: SignalTarget::Process(process), signal, reply };
        self.ask(Call::SignalProcess, one).await
    }

    /// Reads at most `most` bytes of an output; empty means end of file.
    ///
    /// # Errors
    /// When the machine ends, or the guest refuses.
    pub async fn read(&self, stream: Stream, most: u32) -> Result<Vec<u8>, OperationError> {
        let read = |process, reply| Request::Read { process, stream, most, reply };
        self.ask(stream.call(), read).await
    }

    /// Writes some of `data` to its standard input; returns how many bytes were taken.
    ///
    /// # Errors
    /// When nobody reads any more, the machine ends, or the guest refuses.
    pub async fn write_stdin(&self, data: Vec<u8>) -> Result<usize, OperationError> {
        self.ask(Call::WriteStdin, |process, reply| Request::WriteStdin { process, data, reply }).await
    }

    /// Ends its standard input: it reads what was written, then end of file.
    ///
    /// # Errors
    /// When the machine ends, or the guest refuses.
    pub async fn close_stdin(&self) -> Result<(), OperationError> {
        self.ask(Call::CloseStdin, |process, reply| Request::CloseStdin { process, reply }).await
    }

    /// Tells its terminal its size.
    ///
    /// # Errors
    /// When it has none, the machine ends, or the guest refuses.
    pub async fn resize_terminal(&self, size: TerminalSize) -> Result<(), OperationError> {
        self.ask(Call::TtyWinResize, |process, reply| Request::Resize { process, size, reply }).await
    }

    async fn ask<T>(
        &self,
        call: Call,
        request: impl FnOnce(ProcessRef, Reply<T>) -> Request,
    ) -> Result<T, OperationError> {
        let step = Step::of(call, &self.reference);
        self.sandbox.ask(step, |reply| request(self.reference.clone(), reply)).await
    }
}
