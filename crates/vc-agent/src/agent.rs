//! The port: four traits by role, and how one gets hold of an agent.

use std::future::Future;

use vc_types::{AgentAddress, ContainerId, Deadline};

use crate::{
    AgentError, CreateContainer, CreateSandbox, ExitStatus, ProcessRef, Signal, SignalTarget, TerminalSize,
};

/// How to reach the agent of a machine that may still be booting.
pub trait Connect: Send + Sync + 'static {
    /// The agent one gets.
    type Agent: Agent;

    /// Connects and waits until the agent answers a health check.
    ///
    /// # Errors
    /// [`AgentError::Unreachable`] when `deadline` passes first, with the last reason.
    ///
    /// # Cancel safety
    /// Dropping the future drops the attempt; nothing is left in the guest.
    fn connect(
        &self,
        address: &AgentAddress,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Self::Agent, AgentError>> + Send;
}

/// Everything an agent does. Calls may run at the same time; a slow one never holds up another.
pub trait Agent: Guest + Containers + Processes + Streams + 'static {}

impl<T: Guest + Containers + Processes + Streams + 'static> Agent for T {}

/// The guest as a whole.
///
/// # Cancel safety
/// Dropping any future of this trait abandons the answer, not the call: the guest may still do it.
pub trait Guest: Send + Sync {
    /// Asks whether the agent answers.
    ///
    /// # Errors
    /// Any [`AgentError`].
    fn check(&self, deadline: Deadline) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Prepares the guest for containers: hostname, DNS, modules. Once per machine.
    ///
    /// # Errors
    /// Any [`AgentError`].
    fn create_sandbox(
        &self,
        request: &CreateSandbox,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Ends what is left of the sandbox and lets the guest power off.
    ///
    /// # Errors
    /// Any [`AgentError`]; [`AgentError::Disconnected`] may mean that the guest is already gone.
    fn destroy_sandbox(&self, deadline: Deadline) -> impl Future<Output = Result<(), AgentError>> + Send;
}

/// The containers of a guest.
///
/// # Cancel safety
/// Dropping any future of this trait abandons the answer, not the call: the guest may still do it.
pub trait Containers: Send + Sync {
    /// Mounts the storages, in order, and creates the container; its process waits for the start.
    ///
    /// # Errors
    /// [`AgentError::ExecutableNotFound`] and [`AgentError::NotExecutable`] when the fault is in the
    /// container's command; [`AgentError::ContainerExists`] when there is one of that id, which stays
    /// as it is; any other [`AgentError`]. On [`AgentError::Deadline`], [`AgentError::Disconnected`]
    /// and [`AgentError::Malformed`] the container may have come to be, or may do so later: remove it.
    fn create_container(
        &self,
        request: &CreateContainer,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Lets the container's process run.
    ///
    /// # Errors
    /// As of [`Containers::create_container`].
    fn start_container(
        &self,
        id: &ContainerId,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Kills what is left of the container, unmounts its storages and forgets it.
    ///
    /// # Errors
    /// [`AgentError::NoSuchContainer`] when the guest does not have it; any other [`AgentError`].
    fn remove_container(
        &self,
        id: &ContainerId,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;
}

/// The processes of the containers.
pub trait Processes: Send + Sync {
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
}

/// The standard streams of a process.
///
/// Reads and writes have no deadline: a stream may be idle for ever.
///
/// # Cancel safety
/// A dropped read may lose the bytes it was about to return, a dropped write may have written.
pub trait Streams: Send + Sync {
    /// Writes some of `data` to the standard input; returns how many bytes were taken: at least 1,
    /// unless `data` is empty.
    ///
    /// # Errors
    /// [`AgentError::StreamClosed`] when nobody reads any more; any other [`AgentError`].
    fn write_stdin(
        &self,
        process: &ProcessRef,
        data: &[u8],
    ) -> impl Future<Output = Result<usize, AgentError>> + Send;

    /// Ends the standard input: the process reads what was written, then end of file.
    ///
    /// # Errors
    /// Any [`AgentError`].
    fn close_stdin(
        &self,
        process: &ProcessRef,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Reads at most `most` bytes (at least 1) of the standard output; empty means end of file.
    ///
    /// # Errors
    /// Any [`AgentError`]; [`AgentError::Unsendable`] when `most` is 0.
    fn read_stdout(
        &self,
        process: &ProcessRef,
        most: u32,
    ) -> impl Future<Output = Result<Vec<u8>, AgentError>> + Send;

    /// Reads at most `most` bytes (at least 1) of the standard error; empty means end of file.
    ///
    /// # Errors
    /// As of [`Streams::read_stdout`].
    fn read_stderr(
        &self,
        process: &ProcessRef,
        most: u32,
    ) -> impl Future<Output = Result<Vec<u8>, AgentError>> + Send;

    /// Tells the process's terminal its size.
    ///
    /// # Errors
    /// Any [`AgentError`].
    fn resize_terminal(
        &self,
        process: &ProcessRef,
        size: TerminalSize,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;
}
