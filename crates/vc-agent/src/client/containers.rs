//! Containers, over ttrpc.

use oci_spec::runtime::LinuxResources;
use vc_agent_protocol::agent::{
    CreateContainerRequest, Device as DeviceMessage, Empty, PauseContainerRequest, RemoveContainerRequest,
    ResumeContainerRequest, StartContainerRequest, StatsContainerRequest, UpdateContainerRequest,
};
use vc_types::{ContainerId, Deadline};

use super::fault::Fault;
use super::{Client, message, stats};
use crate::{AgentError, Call, ContainerStats, Containers, CreateContainer, Device};

impl Containers for Client {
    async fn create_container(
        &self,
        request: &CreateContainer,
        deadline: Deadline,
    ) -> Result<(), AgentError> {
        let call = Call::CreateContainer;
        let message = CreateContainerRequest {
            container_id: request.id.to_string(),
            exec_id: request.id.to_string(),
            storages: request.storages.iter().map(message::storage).collect(),
            devices: request.devices.iter().map(device).collect(),
            oci: Some(message::whole(call, &request.spec)?).into(),
            sandbox_pidns: request.shared_pid_namespace,
            ..Default::default()
        };
        if !self.created.insert(&request.id) {
            return Err(AgentError::ContainerExists { detail: request.id.to_string() });
        }
        self.waits.forget(&request.id);
        let answer = self.calls.start::<Empty, _>(call, &message, Some(deadline)).await;
        if answer.as_ref().is_err_and(means_no_container) {
            self.created.remove(&request.id);
        }
        answer.map(drop).map_err(|fault| fault.into_error(call))
    }

    async fn start_container(&self, id: &ContainerId, deadline: Deadline) -> Result<(), AgentError> {
        let message = StartContainerRequest { container_id: id.to_string(), ..Default::default() };
        self.calls.ask::<Empty>(Call::StartContainer, &message, Some(deadline)).await.map(drop)
    }

    async fn remove_container(&self, id: &ContainerId, deadline: Deadline) -> Result<(), AgentError> {
        // Without a limit the agent would wait for ever, and 0 means no limit.
        let timeout = u32::try_from(deadline.remaining().as_secs()).unwrap_or(u32::MAX).max(1);
        let message = RemoveContainerRequest { container_id: id.to_string(), timeout, ..Default::default() };
        let answer = self.calls.ask::<Empty>(Call::RemoveContainer, &message, Some(deadline)).await.map(drop);
        if matches!(answer, Ok(()) | Err(AgentError::NoSuchContainer { .. })) {
            self.created.remove(id);
            self.waits.forget(id);
        }
        answer
    }

    async fn update_container(
        &self,
        id: &ContainerId,
        resources: &LinuxResources,
        deadline: Deadline,
    ) -> Result<(), AgentError> {
        let call = Call::UpdateContainer;
        let message = UpdateContainerRequest {
            container_id: id.to_string(),
            resources: Some(message::whole(call, resources)?).into(),
            ..Default::default()
        };
        match self.calls.ask::<Empty>(call, &message, Some(deadline)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.blame(error, id, deadline).await),
        }
    }

    async fn pause_container(&self, id: &ContainerId, deadline: Deadline) -> Result<(), AgentError> {
        let message = PauseContainerRequest { container_id: id.to_string(), ..Default::default() };
        self.calls.ask::<Empty>(Call::PauseContainer, &message, Some(deadline)).await.map(drop)
    }

    async fn resume_container(&self, id: &ContainerId, deadline: Deadline) -> Result<(), AgentError> {
        let message = ResumeContainerRequest { container_id: id.to_string(), ..Default::default() };
        self.calls.ask::<Empty>(Call::ResumeContainer, &message, Some(deadline)).await.map(drop)
    }

    async fn container_stats(
        &self,
        id: &ContainerId,
        deadline: Deadline,
    ) -> Result<ContainerStats, AgentError> {
        let message = StatsContainerRequest { container_id: id.to_string(), ..Default::default() };
        Ok(stats::from_wire(self.calls.ask(Call::StatsContainer, &message, Some(deadline)).await?))
    }
}

impl Client {
    /// What an agent means that finds an argument invalid which may be the container's name or all
    /// else: it has the same code for both, so it is asked whether it knows the container.
    pub(super) async fn blame(&self, error: AgentError, id: &ContainerId, deadline: Deadline) -> AgentError {
        let AgentError::NoSuchContainer { call, detail } = error else { return error };
        match self.container_stats(id, deadline).await {
            Err(AgentError::NoSuchContainer { .. }) => AgentError::NoSuchContainer { call, detail },
            _ => AgentError::Refused { call, detail },
        }
    }
}

/// Whether an agent that answers CreateContainer so certainly has no such container.
fn means_no_container(fault: &Fault) -> bool {
    use ttrpc::Code;
    match fault {
        Fault::Status(code, _) => !matches!(code, Code::ALREADY_EXISTS | Code::DEADLINE_EXCEEDED),
        Fault::Unsendable(_) => true,
        Fault::Deadline | Fault::Disconnected | Fault::Malformed(_) => false,
    }
}

fn device(device: &Device) -> DeviceMessage {
    DeviceMessage {
        id: device.id.clone(),
        type_: device.kind.clone(),
        vm_path: device.vm_path.clone(),
        container_path: device.container_path.clone(),
        options: device.options.clone(),
        ..Default::default()
    }
}
