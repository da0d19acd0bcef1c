//! The containers of a guest.

use std::future::Future;

use oci_spec::runtime::LinuxResources;
use vc_types::{ContainerId, Deadline};

use crate::{AgentError, ContainerStats, CreateContainer};

/// The containers of a guest.
///
/// # Errors
/// [`AgentError::NoSuchContainer`] when the guest does not have it, of all methods but
/// [`Containers::create_container`]; any other [`AgentError`].
///
/// # Cancel safety
/// Dropping any future of this trait abandons the answer, not the call: the guest may still do it.
pub trait Containers: Send + Sync {
    /// Mounts the storages, in order, and creates the container; its process waits for the start.
    ///
    /// # Errors
    /// [`AgentError::ExecutableNotFound`] and [`AgentError::NotExecutable`] when the fault is in the
    /// container's command; [`AgentError::ContainerExists`] when there is one of that id, which stays
    /// as it is; [`AgentError::NotCarried`] when the protocol has no place for something of the
    /// specification; any other [`AgentError`]. On [`AgentError::Deadline`],
    /// [`AgentError::Disconnected`] and [`AgentError::Malformed`] the container may have come to be,
    /// or may do so later: remove it.
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

    /// Kills what is left of the container, paused or not, unmounts its storages and forgets it.
    ///
    /// # Errors
    /// As of all methods.
    fn remove_container(
        &self,
        id: &ContainerId,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Changes the container's limits; what `resources` does not give stays.
    ///
    /// # Errors
    /// [`AgentError::NotCarried`] when the protocol has no place for one of them.
    fn update_container(
        &self,
        id: &ContainerId,
        resources: &LinuxResources,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Freezes every process of the container.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when it is not running.
    fn pause_container(
        &self,
        id: &ContainerId,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Lets a frozen container go on.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when it is not paused.
    fn resume_container(
        &self,
        id: &ContainerId,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// What the container uses, and the traffic of the guest's interfaces.
    ///
    /// # Errors
    /// As of all methods.
    fn container_stats(
        &self,
        id: &ContainerId,
        deadline: Deadline,
    ) -> impl Future<Output = Result<ContainerStats, AgentError>> + Send;
}
