//! Guest, containers and processes over ttrpc.

use vc_agent_protocol::agent::{
    DestroySandboxRequest, RemoveContainerRequest, SignalProcessRequest, StartContainerRequest,
    WaitProcessRequest,
};
use vc_agent_protocol::agent_ttrpc::AgentServiceClient;
use vc_agent_protocol::health::{CheckRequest, ServingStatus};
use vc_agent_protocol::health_ttrpc::HealthClient;
use vc_types::{ContainerId, Deadline};

use super::fault::Fault;
use super::link::Link;
use super::{Client, message};
use crate::{
    AgentError, Call, Containers, CreateContainer, CreateSandbox, ExitStatus, Guest, ProcessRef, Processes,
    Signal, SignalTarget,
};

/// Asks over `link` whether the agent serves.
pub(super) async fn check(link: &Link, deadline: Deadline) -> Result<(), AgentError> {
    let call = Call::Check;
    let answer = link
        .request(call, Some(deadline), |client, context| async move {
            HealthClient::new(client).check(context, &CheckRequest::new()).await
        })
        .await?;
    match answer.status.enum_value() {
        Ok(ServingStatus::SERVING) => Ok(()),
        status => Err(AgentError::Refused { call, detail: format!("its health is {status:?}") }),
    }
}

impl Guest for Client {
    async fn check(&self, deadline: Deadline) -> Result<(), AgentError> {
        check(&self.calls, deadline).await
    }

    async fn create_sandbox(&self, request: &CreateSandbox, deadline: Deadline) -> Result<(), AgentError> {
        let message = message::create_sandbox(request)?;
        let answer = self.calls.request(Call::CreateSandbox, Some(deadline), |client, context| async move {
            AgentServiceClient::new(client).create_sandbox(context, &message).await
        });
        answer.await.map(drop)
    }

    async fn destroy_sandbox(&self, deadline: Deadline) -> Result<(), AgentError> {
        let answer = self.calls.request(Call::DestroySandbox, Some(deadline), |client, context| async move {
            AgentServiceClient::new(client).destroy_sandbox(context, &DestroySandboxRequest::new()).await
        });
        answer.await.map(drop)
    }
}

impl Containers for Client {
    async fn create_container(
        &self,
        request: &CreateContainer,
        deadline: Deadline,
    ) -> Result<(), AgentError> {
        let message = message::create_container(request)?;
        if !self.created.insert(&request.id) {
            return Err(AgentError::ContainerExists { detail: request.id.to_string() });
        }
        self.waits.forget(&request.id);
        let answer = self.calls.start(Some(deadline), |client, context| async move {
            AgentServiceClient::new(client).create_container(context, &message).await
        });
        let answer = answer.await;
        if matches!(answer, Err(Fault::Status(code, _)) if means_no_container(code)) {
            self.created.remove(&request.id);
        }
        answer.map(drop).map_err(|fault| fault.into_error(Call::CreateContainer))
    }

    async fn start_container(&self, id: &ContainerId, deadline: Deadline) -> Result<(), AgentError> {
        let message = StartContainerRequest { container_id: id.to_string(), ..Default::default() };
        let answer = self.calls.request(Call::StartContainer, Some(deadline), |client, context| async move {
            AgentServiceClient::new(client).start_container(context, &message).await
        });
        answer.await.map(drop)
    }

    async fn remove_container(&self, id: &ContainerId, deadline: Deadline) -> Result<(), AgentError> {
        // Without a limit the agent would wait for ever, and 0 means no limit.
        let timeout = u32::try_from(deadline.remaining().as_secs()).unwrap_or(u32::MAX).max(1);
        let message = RemoveContainerRequest { container_id: id.to_string(), timeout, ..Default::default() };
        let answer =
            self.calls.request(Call::RemoveContainer, Some(deadline), |client, context| async move {
                AgentServiceClient::new(client).remove_container(context, &message).await
            });
        let answer = answer.await.map(drop);
        if matches!(answer, Ok(()) | Err(AgentError::NoSuchContainer { .. })) {
            self.created.remove(id);
            self.waits.forget(id);
        }
        answer
    }
}

impl Processes for Client {
    async fn signal(
        &self,
        target: &SignalTarget,
        signal: Signal,
        deadline: Deadline,
    ) -> Result<(), AgentError> {
        let (container, exec_id) = match target {
            SignalTarget::Process(process) => (&process.container, message::exec_id(process)),
            SignalTarget::All(container) => (container, String::new()),
        };
        let message = SignalProcessRequest {
            container_id: container.to_string(),
            exec_id,
            signal: signal.number(),
            ..Default::default()
        };
        let answer = self.calls.request(Call::SignalProcess, Some(deadline), |client, context| async move {
            AgentServiceClient::new(client).signal_process(context, &message).await
        });
        answer.await.map(drop)
    }

    async fn wait(&self, process: &ProcessRef) -> Result<ExitStatus, AgentError> {
        let message = WaitProcessRequest {
            container_id: process.container.to_string(),
            exec_id: message::exec_id(process),
            ..Default::default()
        };
        let ask = || {
            let answer = self.calls.start(None, |client, context| async move {
                AgentServiceClient::new(client).wait_process(context, &message).await
            });
            async { exit_status(answer.await?.status) }
        };
        self.waits.wait(process, ask).await
    }
}

/// Whether an agent that answers CreateContainer with `code` certainly has no such container.
fn means_no_container(code: ttrpc::Code) -> bool {
    !matches!(code, ttrpc::Code::ALREADY_EXISTS | ttrpc::Code::DEADLINE_EXCEEDED)
}

fn exit_status(status: i32) -> Result<ExitStatus, Fault> {
    let code = u8::try_from(status);
    code.map(ExitStatus).map_err(|_| Fault::Malformed(format!("{status} is no exit status")))
}
