//! The guest as a whole, over ttrpc.

use vc_agent_protocol::agent::{
    CreateSandboxRequest, DestroySandboxRequest, Empty, GetDiagnosticDataRequest, GetDiagnosticDataResponse,
    GetMetricsRequest, GetOOMEventRequest, GuestDetailsRequest, GuestDetailsResponse,
    KernelModule as ModuleMessage, Metrics, OOMEvent,
};
use vc_agent_protocol::health::{CheckRequest, HealthCheckResponse, ServingStatus};
use vc_types::{ContainerId, Deadline};

use super::line::Line;
use super::{Client, message};
use crate::{AgentError, Call, CreateSandbox, Diagnostic, Guest, GuestDetails, KernelModule};

/// Asks over `line` whether the agent serves.
pub(super) async fn check(line: &Line, deadline: Deadline) -> Result<(), AgentError> {
    let call = Call::Check;
    let answer: HealthCheckResponse = line.ask(call, &CheckRequest::new(), Some(deadline)).await?;
    match answer.status.enum_value() {
        Ok(ServingStatus::SERVING) => Ok(()),
        status => Err(AgentError::Refused { call, detail: format!("its health is {status:?}") }),
    }
}

impl Guest for Client {
    async fn check(&self, deadline: Deadline) -> Result<(), AgentError> {
        check(&self.calls, deadline).await
    }

    async fn details(&self, deadline: Deadline) -> Result<GuestDetails, AgentError> {
        let message =
            GuestDetailsRequest { mem_block_size: true, mem_hotplug_probe: true, ..Default::default() };
        let answer = self.calls.ask(Call::GetGuestDetails, &message, Some(deadline)).await?;
        Ok(details(answer))
    }

    async fn create_sandbox(&self, request: &CreateSandbox, deadline: Deadline) -> Result<(), AgentError> {
        let message = CreateSandboxRequest {
            sandbox_id: request.id.to_string(),
            hostname: request.hostname.clone(),
            dns: request.dns.clone(),
            storages: request.storages.iter().map(message::storage).collect(),
            sandbox_pidns: request.shared_pid_namespace,
            guest_hook_path: request.guest_hooks.as_ref().map(ToString::to_string).unwrap_or_default(),
            kernel_modules: request.kernel_modules.iter().map(module).collect(),
            ..Default::default()
        };
        self.calls.ask::<Empty>(Call::CreateSandbox, &message, Some(deadline)).await.map(drop)
    }

    async fn destroy_sandbox(&self, deadline: Deadline) -> Result<(), AgentError> {
        let message = DestroySandboxRequest::new();
        let answer = self.calls.ask::<Empty>(Call::DestroySandbox, &message, Some(deadline)).await;
        if answer.is_ok() {
            self.calls.end();
            self.streams.end();
        }
        answer.map(drop)
    }

    async fn metrics(&self, deadline: Deadline) -> Result<String, AgentError> {
        let message = GetMetricsRequest::new();
        let answer: Metrics = self.calls.ask(Call::GetMetrics, &message, Some(deadline)).await?;
        Ok(answer.metrics)
    }

    async fn diagnostic(
        &self,
        container: &ContainerId,
        what: Diagnostic,
        deadline: Deadline,
    ) -> Result<String, AgentError> {
        let message = GetDiagnosticDataRequest {
            log_type: what.name().to_owned(),
            container_id: container.to_string(),
            ..Default::default()
        };
        let answer: GetDiagnosticDataResponse =
            self.calls.ask(Call::GetDiagnosticData, &message, Some(deadline)).await?;
        Ok(answer.data)
    }

    async fn oom_event(&self) -> Result<ContainerId, AgentError> {
        let call = Call::GetOOMEvent;
        let ask = || {
            let answer = self.calls.start::<OOMEvent, _>(call, &GetOOMEventRequest::new(), None);
            async { Ok(answer.await?.container_id) }
        };
        let name = self.events.next(ask).await.map_err(|fault| fault.into_error(call))?;
        name.parse().map_err(|error| AgentError::Malformed { call, detail: format!("{error}") })
    }
}

fn module(module: &KernelModule) -> ModuleMessage {
    ModuleMessage { name: module.name.clone(), parameters: module.parameters.clone(), ..Default::default() }
}

fn details(answer: GuestDetailsResponse) -> GuestDetails {
    let agent = answer.agent_details.into_option().unwrap_or_default();
    GuestDetails {
        version: agent.version,
        is_init: agent.init_daemon,
        devices: agent.device_handlers,
        storages: agent.storage_handlers,
        seccomp: agent.supports_seccomp,
        features: agent.extra_features,
        memory_block: Some(answer.mem_block_size_bytes).filter(|bytes| *bytes > 0),
        memory_probe: answer.support_mem_hotplug_probe,
    }
}
