//! From the port's requests to the messages of the wire.

use protobuf::{Message, MessageField};
use vc_agent_protocol::agent::{CreateContainerRequest, CreateSandboxRequest, Storage as StorageMessage};
use vc_agent_protocol::oci::Spec;

use crate::{AgentError, Call, CreateContainer, CreateSandbox, ProcessRef, Storage};

/// The longest request message, in bytes: ttrpc's 4 MiB less room for its envelope.
const MAX_REQUEST: u64 = ttrpc::proto::MESSAGE_LENGTH_MAX as u64 - 4096;

/// The `exec_id` by which the wire knows `process`. The init process has its container's id; an
/// empty one would mean every process of the container.
pub(super) fn exec_id(process: &ProcessRef) -> String {
    match &process.exec {
        None => process.container.to_string(),
        Some(exec) => exec.to_string(),
    }
}

pub(super) fn create_sandbox(request: &CreateSandbox) -> Result<CreateSandboxRequest, AgentError> {
    let message = CreateSandboxRequest {
        sandbox_id: request.id.to_string(),
        hostname: request.hostname.clone(),
        dns: request.dns.clone(),
        storages: request.storages.iter().map(storage).collect(),
        ..Default::default()
    };
    within_bounds(Call::CreateSandbox, message)
}

pub(super) fn create_container(request: &CreateContainer) -> Result<CreateContainerRequest, AgentError> {
    let call = Call::CreateContainer;
    let spec = Spec::try_from(&request.spec)
        .map_err(|error| AgentError::Unsendable { call, detail: error.to_string() })?;
    let message = CreateContainerRequest {
        container_id: request.id.to_string(),
        exec_id: request.id.to_string(),
        storages: request.storages.iter().map(storage).collect(),
        oci: MessageField::some(spec),
        sandbox_pidns: request.shared_pid_namespace,
        ..Default::default()
    };
    within_bounds(call, message)
}

fn storage(storage: &Storage) -> StorageMessage {
    StorageMessage {
        driver: storage.driver.name().to_owned(),
        driver_options: storage.driver_options.clone(),
        source: storage.source.clone(),
        fstype: storage.fs_type.clone(),
        options: storage.options.clone(),
        mount_point: storage.mount_point.to_string(),
        ..Default::default()
    }
}

/// Refuses here what ttrpc would refuse in words only.
fn within_bounds<M: Message>(call: Call, message: M) -> Result<M, AgentError> {
    let size = message.compute_size();
    if size > MAX_REQUEST {
        let detail = format!("the request has {size} bytes, the protocol allows {MAX_REQUEST}");
        return Err(AgentError::Unsendable { call, detail });
    }
    Ok(message)
}
