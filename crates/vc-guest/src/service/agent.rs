//! `grpc.AgentService`. Methods that are not here answer UNIMPLEMENTED.

use super::call;
use crate::container::{self, Process};
use crate::error::CallError;
use crate::guest::Guest;
use crate::sandbox;
use crate::storage::StorageSpec;
use async_trait::async_trait;
use nix::errno::Errno;
use std::path::Path;
use std::sync::Arc;
use ttrpc::asynchronous::TtrpcContext;
use vc_agent_protocol::agent::{
    AgentDetails, CloseStdinRequest, CreateContainerRequest, CreateSandboxRequest, DestroySandboxRequest,
    Empty, ExecProcessRequest, GetOOMEventRequest, GuestDetailsRequest, GuestDetailsResponse, OOMEvent,
    PauseContainerRequest, ReadStreamRequest, ReadStreamResponse, RemoveContainerRequest,
    ResumeContainerRequest, SignalProcessRequest, StartContainerRequest, StatsContainerRequest,
    StatsContainerResponse, TtyWinResizeRequest, UpdateContainerRequest, WaitProcessRequest,
    WaitProcessResponse, WriteStreamRequest, WriteStreamResponse,
};
use vc_agent_protocol::agent_ttrpc;

/// The most bytes of one answer of ReadStdout or ReadStderr; a ttrpc message has at most 4 MiB.
const MAX_READ: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Agent(pub(super) Guest);

#[async_trait]
impl agent_ttrpc::AgentService for Agent {
    async fn get_guest_details(
        &self,
        _: &TtrpcContext,
        request: GuestDetailsRequest,
    ) -> ttrpc::Result<GuestDetailsResponse> {
        call("GetGuestDetails", async move { Ok(guest_details(&request)) }).await
    }

    async fn create_sandbox(&self, _: &TtrpcContext, request: CreateSandboxRequest) -> ttrpc::Result<Empty> {
        let guest = self.0.clone();
        empty(call("CreateSandbox", async move { sandbox::create(&guest, request).await }).await)
    }

    async fn destroy_sandbox(&self, _: &TtrpcContext, _: DestroySandboxRequest) -> ttrpc::Result<Empty> {
        let guest = self.0.clone();
        empty(call("DestroySandbox", async move { sandbox::destroy(&guest).await }).await)
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let guest = self.0.clone();
        empty(call("CreateContainer", async move { container::create(&guest, request).await }).await)
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        request: StartContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let guest = self.0.clone();
        let work = async move { guest.container(&request.container_id)?.start() };
        empty(call("StartContainer", work).await)
    }

    async fn remove_container(
        &self,
        _: &TtrpcContext,
        request: RemoveContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let guest = self.0.clone();
        let work = async move { container::remove(&guest, &request.container_id, request.timeout).await };
        empty(call("RemoveContainer", work).await)
    }

    async fn exec_process(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let guest = self.0.clone();
        let work = async move {
            if request.stdin_port + request.stdout_port + request.stderr_port > 0 {
                return Err(CallError::Unsupported("streams on ports of their own"));
            }
            guest.container(&request.container_id)?.exec(&request.exec_id, &request.process).await
        };
        empty(call("ExecProcess", work).await)
    }

    async fn signal_process(&self, _: &TtrpcContext, request: SignalProcessRequest) -> ttrpc::Result<Empty> {
        let guest = self.0.clone();
        let work = async move {
            guest.container(&request.container_id)?.signal(&request.exec_id, request.signal).await
        };
        empty(call("SignalProcess", work).await)
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: WaitProcessRequest,
    ) -> ttrpc::Result<WaitProcessResponse> {
        let guest = self.0.clone();
        call("WaitProcess", async move {
            let container = guest.container(&request.container_id)?;
            let process = container.process(&request.exec_id)?;
            let status = process.wait().await;
            container.forget_if_done(&process);
            Ok(WaitProcessResponse { status, ..Default::default() })
        })
        .await
    }

    async fn update_container(
        &self,
        _: &TtrpcContext,
        request: UpdateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let guest = self.0.clone();
        let work = async move { guest.container(&request.container_id)?.update(&request.resources) };
        empty(call("UpdateContainer", work).await)
    }

    // As reading a stream: an event must not be taken for a host that has gone.
    async fn get_oom_event(&self, _: &TtrpcContext, _: GetOOMEventRequest) -> ttrpc::Result<OOMEvent> {
        let container_id = self.0.oom_kills().next().await.to_string();
        Ok(OOMEvent { container_id, ..Default::default() })
    }

    async fn pause_container(
        &self,
        _: &TtrpcContext,
        request: PauseContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let guest = self.0.clone();
        let work = async move { guest.container(&request.container_id)?.pause().await };
        empty(call("PauseContainer", work).await)
    }

    async fn resume_container(
        &self,
        _: &TtrpcContext,
        request: ResumeContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let guest = self.0.clone();
        let work = async move { guest.container(&request.container_id)?.resume().await };
        empty(call("ResumeContainer", work).await)
    }

    async fn stats_container(
        &self,
        _: &TtrpcContext,
        request: StatsContainerRequest,
    ) -> ttrpc::Result<StatsContainerResponse> {
        let guest = self.0.clone();
        let work = async move { Ok(guest.container(&request.container_id)?.stats()) };
        call("StatsContainer", work).await
    }

    async fn write_stdin(
        &self,
        _: &TtrpcContext,
        request: WriteStreamRequest,
    ) -> ttrpc::Result<WriteStreamResponse> {
        let guest = self.0.clone();
        call("WriteStdin", async move {
            let process = process(&guest, &request.container_id, &request.exec_id)?;
            let length = u32::try_from(request.data.len()).map_err(|_| CallError::Range("the data"))?;
            process.streams.stdin.write(request.data).await.map_err(|errno| match errno {
                Errno::EPIPE => CallError::StdinClosed(process.id.clone()),
                other => CallError::System("write to the process", other),
            })?;
            Ok(WriteStreamResponse { len: length, ..Default::default() })
        })
        .await
    }

    async fn close_stdin(&self, _: &TtrpcContext, request: CloseStdinRequest) -> ttrpc::Result<Empty> {
        let guest = self.0.clone();
        let work = async move {
            process(&guest, &request.container_id, &request.exec_id)?.streams.stdin.close().await;
            Ok(())
        };
        empty(call("CloseStdin", work).await)
    }

    // Reading runs in the call's own task, which ends with the connection: an answer that nobody
    // waits for any more must not take bytes from the stream.
    async fn read_stdout(
        &self,
        _: &TtrpcContext,
        request: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        Ok(read(&self.0, &request, false).await?)
    }

    async fn read_stderr(
        &self,
        _: &TtrpcContext,
        request: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        Ok(read(&self.0, &request, true).await?)
    }

    async fn tty_win_resize(&self, _: &TtrpcContext, request: TtyWinResizeRequest) -> ttrpc::Result<Empty> {
        let guest = self.0.clone();
        let work = async move {
            let process = process(&guest, &request.container_id, &request.exec_id)?;
            let size =
                |number: u32| u16::try_from(number).map_err(|_| CallError::Range("the terminal's size"));
            process.streams.resize(size(request.row)?, size(request.column)?).map_err(|errno| match errno {
                Errno::ENOTTY => CallError::NoTerminal(process.id.clone()),
                other => CallError::System("resize the terminal", other),
            })
        };
        empty(call("TtyWinResize", work).await)
    }
}

fn empty(result: ttrpc::Result<()>) -> ttrpc::Result<Empty> {
    result.map(|()| Empty::default())
}

fn process(guest: &Guest, container: &str, exec: &str) -> Result<Arc<Process>, CallError> {
    guest.container(container)?.process(exec)
}

/// The end of a stream is an answer without data; so is the stderr of a process with a terminal.
async fn read(
    guest: &Guest,
    request: &ReadStreamRequest,
    stderr: bool,
) -> Result<ReadStreamResponse, CallError> {
    let container = guest.container(&request.container_id)?;
    let process = container.process(&request.exec_id)?;
    let most = usize::try_from(request.len).unwrap_or(MAX_READ).min(MAX_READ);
    if most == 0 {
        return Err(CallError::Range("the length"));
    }
    let stream = if stderr { process.streams.stderr.as_ref() } else { Some(&process.streams.stdout) };
    let data = match stream {
        Some(stream) => {
            stream.read(most).await.map_err(|error| CallError::Stream("read the stream", error))?
        }
        None => Vec::new(),
    };
    if data.is_empty() {
        container.forget_if_done(&process);
    }
    Ok(ReadStreamResponse { data, ..Default::default() })
}

fn guest_details(request: &GuestDetailsRequest) -> GuestDetailsResponse {
    const MEMORY: &str = "/sys/devices/system/memory";
    let block_size = || {
        let text = std::fs::read_to_string(format!("{MEMORY}/block_size_bytes")).ok()?;
        u64::from_str_radix(text.trim(), 16).ok()
    };
    let details = AgentDetails {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        init_daemon: std::process::id() == 1,
        storage_handlers: StorageSpec::DRIVERS.map(str::to_owned).to_vec(),
        supports_seccomp: crate::SUPPORTS_SECCOMP,
        ..Default::default()
    };
    GuestDetailsResponse {
        mem_block_size_bytes: request.mem_block_size.then(block_size).flatten().unwrap_or_default(),
        support_mem_hotplug_probe: request.mem_hotplug_probe && Path::new(MEMORY).join("probe").exists(),
        agent_details: Some(details).into(),
        ..Default::default()
    }
}
