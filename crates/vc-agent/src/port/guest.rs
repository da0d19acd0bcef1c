//! The guest as a whole: its sandbox, and what it tells of itself.

use std::future::Future;

use vc_types::{ContainerId, Deadline};

use crate::{AgentError, CreateSandbox, Diagnostic, GuestDetails};

/// The guest as a whole.
///
/// # Cancel safety
/// Dropping any future of this trait abandons the answer, not the call: the guest may still do it.
/// Only [`Guest::oom_event`] loses nothing.
pub trait Guest: Send + Sync {
    /// Asks whether the agent answers.
    ///
    /// # Errors
    /// Any [`AgentError`].
    fn check(&self, deadline: Deadline) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// What the agent is and can do: ask before using what is optional.
    ///
    /// # Errors
    /// Any [`AgentError`].
    fn details(&self, deadline: Deadline) -> impl Future<Output = Result<GuestDetails, AgentError>> + Send;

    /// Prepares the guest for containers: hostname, DNS, modules, storages. Once per machine.
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

    /// The metrics of agent and guest, in the text format of Prometheus.
    ///
    /// # Errors
    /// Any [`AgentError`].
    fn metrics(&self, deadline: Deadline) -> impl Future<Output = Result<String, AgentError>> + Send;

    /// What a container left for whoever looks into its end.
    ///
    /// # Errors
    /// [`AgentError::NoSuchContainer`] when the guest does not have it; [`AgentError::Unimplemented`]
    /// by agents before Kata's 4.0; any other [`AgentError`].
    fn diagnostic(
        &self,
        container: &ContainerId,
        what: Diagnostic,
        deadline: Deadline,
    ) -> impl Future<Output = Result<String, AgentError>> + Send;

    /// Waits until a process of a container is killed for want of memory; returns the container.
    ///
    /// There is no deadline. Of several who wait at the same time each gets another event.
    ///
    /// # Errors
    /// Any [`AgentError`].
    ///
    /// # Cancel safety
    /// Nothing is lost: the next one who asks gets the event.
    fn oom_event(&self) -> impl Future<Output = Result<ContainerId, AgentError>> + Send;
}
