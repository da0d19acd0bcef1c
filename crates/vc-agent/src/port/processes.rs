//! The processes of the containers.

use std::future::Future;

use vc_types::Deadline;

use crate::{AgentError, ExecProcess, ExitStatus, ProcessRef, Signal, SignalTarget, TerminalSize};

/// The processes of the containers.
pub trait Processes: Send + Sync {
    /// Starts another process in a running container.
    ///
    /// # Errors
    /// [`AgentError::ExecutableNotFound`] and [`AgentError::NotExecutable`] when the fault is in the
    /// command; [`AgentError::ProcessExists`] when the container has one of that name, which runs on;
    /// [`AgentError::NoSuchContainer`]; [`AgentError::NotCarried`] when the protocol has no place for
    /// something of the process; any other [`AgentError`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer; the process may still come to be.
    fn exec(
        &self,
        request: &ExecProcess,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Sends `signal`. Agents may answer so too when the process has just ended, Kata's among them.
    ///
    /// # Errors
    /// [`AgentError::AlreadyGone`] when nothing is left to take the signal; any other [`AgentError`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer; the signal may still be sent.
    fn signal(
        &self,
        target: &SignalTarget,
        signal: Signal,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Waits for the process to end. There is no deadline: a process may run for ever, and whoever
    /// wants to give up drops the future. Any number may wait, at the same time and later, until the
    /// container is removed.
    ///
    /// Read the process's streams to their end before: Kata's agent forgets them once it has told the
    /// exit status. It also tells n instead of 128 + n when signal n ended the process.
    ///
    /// # Errors
    /// [`AgentError::NoSuchContainer`] or [`AgentError::NoSuchProcess`] when it is unknown; any other
    /// [`AgentError`].
    ///
    /// # Cancel safety
    /// Nothing is lost: the next one who waits gets the exit status.
    fn wait(&self, process: &ProcessRef) -> impl Future<Output = Result<ExitStatus, AgentError>> + Send;

    /// Tells the process's terminal its size.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when it has none; any other [`AgentError`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer; the size may still be set.
    fn resize_terminal(
        &self,
        process: &ProcessRef,
        size: TerminalSize,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;
}
