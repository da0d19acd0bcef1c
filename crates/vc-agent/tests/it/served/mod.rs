//! The fake behind a real ttrpc server, which answers with the codes that agents answer with.

mod convert;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use ttrpc::asynchronous::transport::Listener;
use ttrpc::asynchronous::{Server, TtrpcContext};
use ttrpc::error::get_rpc_status;
use ttrpc::{Code, Error};
use vc_agent::fake::FakeAgent;
use vc_agent::{
    AgentError, Containers, CreateContainer, CreateSandbox, Diagnostic, ExecProcess, Guest, IpFamily,
    Network, Online, ProcessRef, Processes, Signal, SignalTarget, Streams, System, TerminalSize, Volumes,
};
use vc_agent_protocol::agent::*;
use vc_agent_protocol::agent_ttrpc::{AgentService, create_agent_service};
use vc_agent_protocol::csi::VolumeStatsResponse;
use vc_agent_protocol::health::{CheckRequest, HealthCheckResponse, ServingStatus};
use vc_agent_protocol::health_ttrpc::{Health, create_health};
use vc_agent_protocol::types::Interface;
use vc_types::{AgentAddress, Deadline, HostPath};

use self::convert::{
    copy_file, interface, interface_message, neighbor, path, process, route, routes_message, stats_message,
    storage, volume_message,
};
use crate::peer::generous;

/// Serves a fake on a Unix socket until it is dropped.
pub(crate) struct Served {
    _server: Server,
    directory: tempfile::TempDir,
}

impl Served {
    pub(crate) async fn new(agent: FakeAgent) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("unix://{}", directory.path().join("socket").display());
        let service = Arc::new(Service { agent, told: Mutex::default() });
        let mut server = Server::new()
            .add_listener(Listener::bind(address).unwrap())
            .register_service(create_health(service.clone()))
            .register_service(create_agent_service(service));
        server.start().await.unwrap();
        Self { _server: server, directory }
    }

    pub(crate) fn address(&self) -> AgentAddress {
        AgentAddress::Unix { socket: HostPath::new(self.directory.path().join("socket")).unwrap() }
    }
}

struct Service {
    agent: FakeAgent,
    /// The processes whose exit status was told: the wire does so once.
    told: Mutex<HashSet<ProcessRef>>,
}

fn deadline(context: &TtrpcContext) -> Deadline {
    assert!(context.timeout_nano > 0, "a deadline goes with the call");
    generous()
}

fn empty(result: Result<(), AgentError>) -> ttrpc::Result<Empty> {
    result.map(|()| Empty::new()).map_err(status)
}

fn status(error: AgentError) -> Error {
    let code = match &error {
        AgentError::NoSuchContainer { .. } => Code::INVALID_ARGUMENT,
        AgentError::NoSuchProcess { .. } | AgentError::AlreadyGone => Code::NOT_FOUND,
        AgentError::ExecutableNotFound { .. } => Code::NOT_FOUND,
        AgentError::NotExecutable { .. } => Code::PERMISSION_DENIED,
        AgentError::ContainerExists { .. } | AgentError::ProcessExists { .. } => Code::ALREADY_EXISTS,
        AgentError::StreamClosed => Code::FAILED_PRECONDITION,
        AgentError::Deadline { .. } => Code::DEADLINE_EXCEEDED,
        _ => Code::INTERNAL,
    };
    get_rpc_status(code, format!("{error}\nStack backtrace:\n 0: main"))
}

#[async_trait]
impl Health for Service {
    async fn check(&self, context: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        self.agent.check(deadline(context)).await.map_err(status)?;
        Ok(HealthCheckResponse { status: ServingStatus::SERVING.into(), ..Default::default() })
    }
}

#[async_trait]
impl AgentService for Service {
    async fn create_sandbox(
        &self,
        context: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> ttrpc::Result<Empty> {
        let sandbox = CreateSandbox {
            hostname: request.hostname,
            dns: request.dns,
            storages: request.storages.iter().map(storage).collect(),
            ..CreateSandbox::new(request.sandbox_id.parse().unwrap())
        };
        empty(self.agent.create_sandbox(&sandbox, deadline(context)).await)
    }

    async fn destroy_sandbox(
        &self,
        context: &TtrpcContext,
        _: DestroySandboxRequest,
    ) -> ttrpc::Result<Empty> {
        empty(self.agent.destroy_sandbox(deadline(context)).await)
    }

    async fn create_container(
        &self,
        context: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let spec = Spec::try_from(request.oci.as_ref().unwrap()).unwrap();
        let container = CreateContainer {
            storages: request.storages.iter().map(storage).collect(),
            shared_pid_namespace: request.sandbox_pidns,
            ..CreateContainer::new(request.container_id.parse().unwrap(), spec)
        };
        empty(self.agent.create_container(&container, deadline(context)).await)
    }

    async fn start_container(
        &self,
        context: &TtrpcContext,
        request: StartContainerRequest,
    ) -> ttrpc::Result<Empty> {
        empty(self.agent.start_container(&request.container_id.parse().unwrap(), deadline(context)).await)
    }

    async fn remove_container(
        &self,
        context: &TtrpcContext,
        request: RemoveContainerRequest,
    ) -> ttrpc::Result<Empty> {
        assert!(request.timeout > 0, "0 would mean for ever");
        let id = request.container_id.parse().unwrap();
        let removed = self.agent.remove_container(&id, deadline(context)).await;
        self.told.lock().unwrap().retain(|process| process.container != id);
        empty(removed)
    }

    async fn signal_process(
        &self,
        context: &TtrpcContext,
        request: SignalProcessRequest,
    ) -> ttrpc::Result<Empty> {
        let target = match request.exec_id.as_str() {
            "" => SignalTarget::All(request.container_id.parse().unwrap()),
            exec => SignalTarget::Process(process(&request.container_id, exec)),
        };
        let signal = Signal::new(request.signal.try_into().unwrap()).unwrap();
        empty(self.agent.signal(&target, signal, deadline(context)).await)
    }

    async fn wait_process(
        &self,
        context: &TtrpcContext,
        request: WaitProcessRequest,
    ) -> ttrpc::Result<WaitProcessResponse> {
        assert_eq!(context.timeout_nano, 0, "a process may run for ever");
        let process = process(&request.container_id, &request.exec_id);
        if !self.told.lock().unwrap().insert(process.clone()) {
            return Err(get_rpc_status(Code::NOT_FOUND, "its exit status was told before"));
        }
        match self.agent.wait(&process).await {
            Ok(code) => Ok(WaitProcessResponse { status: code.0.into(), ..Default::default() }),
            Err(error) => {
                self.told.lock().unwrap().remove(&process);
                Err(status(error))
            }
        }
    }

    async fn write_stdin(
        &self,
        _: &TtrpcContext,
        request: WriteStreamRequest,
    ) -> ttrpc::Result<WriteStreamResponse> {
        let process = process(&request.container_id, &request.exec_id);
        let taken = self.agent.write_stdin(&process, &request.data).await.map_err(status)?;
        Ok(WriteStreamResponse { len: taken.try_into().unwrap(), ..Default::default() })
    }

    async fn read_stdout(
        &self,
        _: &TtrpcContext,
        request: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        let process = process(&request.container_id, &request.exec_id);
        let data = self.agent.read_stdout(&process, request.len).await.map_err(status)?;
        Ok(ReadStreamResponse { data, ..Default::default() })
    }

    async fn read_stderr(
        &self,
        _: &TtrpcContext,
        request: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        let process = process(&request.container_id, &request.exec_id);
        let data = self.agent.read_stderr(&process, request.len).await.map_err(status)?;
        Ok(ReadStreamResponse { data, ..Default::default() })
    }

    async fn close_stdin(&self, context: &TtrpcContext, request: CloseStdinRequest) -> ttrpc::Result<Empty> {
        let process = process(&request.container_id, &request.exec_id);
        empty(self.agent.close_stdin(&process, deadline(context)).await)
    }

    async fn tty_win_resize(
        &self,
        context: &TtrpcContext,
        request: TtyWinResizeRequest,
    ) -> ttrpc::Result<Empty> {
        let process = process(&request.container_id, &request.exec_id);
        let size = TerminalSize {
            rows: request.row.try_into().unwrap(),
            columns: request.column.try_into().unwrap(),
        };
        empty(self.agent.resize_terminal(&process, size, deadline(context)).await)
    }
    async fn get_guest_details(
        &self,
        context: &TtrpcContext,
        request: GuestDetailsRequest,
    ) -> ttrpc::Result<GuestDetailsResponse> {
        assert!(request.mem_block_size && request.mem_hotplug_probe);
        let details = self.agent.details(deadline(context)).await.map_err(status)?;
        let agent_details = AgentDetails {
            version: details.version,
            storage_handlers: details.storages,
            ..Default::default()
        };
        Ok(GuestDetailsResponse {
            mem_block_size_bytes: details.memory_block.unwrap_or(0),
            agent_details: Some(agent_details).into(),
            ..Default::default()
        })
    }

    async fn get_metrics(
        &self,
        context: &TtrpcContext,
        request: GetMetricsRequest,
    ) -> ttrpc::Result<Metrics> {
        let _ = request;
        let metrics = self.agent.metrics(deadline(context)).await.map_err(status)?;
        Ok(Metrics { metrics, ..Default::default() })
    }

    async fn get_diagnostic_data(
        &self,
        context: &TtrpcContext,
        request: GetDiagnosticDataRequest,
    ) -> ttrpc::Result<GetDiagnosticDataResponse> {
        assert_eq!(request.log_type, "termination_log");
        let id = request.container_id.parse().unwrap();
        let data = self.agent.diagnostic(&id, Diagnostic::TerminationLog, deadline(context)).await;
        Ok(GetDiagnosticDataResponse { data: data.map_err(status)?, ..Default::default() })
    }

    async fn get_oom_event(
        &self,
        context: &TtrpcContext,
        request: GetOOMEventRequest,
    ) -> ttrpc::Result<OOMEvent> {
        assert_eq!((context.timeout_nano, request), (0, GetOOMEventRequest::new()));
        let container_id = self.agent.oom_event().await.map_err(status)?.to_string();
        Ok(OOMEvent { container_id, ..Default::default() })
    }

    async fn online_cpu_mem(
        &self,
        context: &TtrpcContext,
        request: OnlineCPUMemRequest,
    ) -> ttrpc::Result<Empty> {
        let what = Online { cpus: request.nb_cpus, memory: !request.cpu_only, wait: request.wait };
        empty(self.agent.online(what, deadline(context)).await)
    }

    async fn mem_hotplug_by_probe(
        &self,
        context: &TtrpcContext,
        request: MemHotplugByProbeRequest,
    ) -> ttrpc::Result<Empty> {
        empty(self.agent.probe_memory(&request.mem_hotplug_probe_addr, deadline(context)).await)
    }

    async fn add_swap_path(
        &self,
        context: &TtrpcContext,
        request: AddSwapPathRequest,
    ) -> ttrpc::Result<Empty> {
        empty(self.agent.add_swap_file(&path(&request.path), deadline(context)).await)
    }

    async fn set_guest_date_time(
        &self,
        context: &TtrpcContext,
        request: SetGuestDateTimeRequest,
    ) -> ttrpc::Result<Empty> {
        let seconds = Duration::from_secs(request.sec.try_into().unwrap());
        let time = UNIX_EPOCH + seconds + Duration::from_micros(request.usec.try_into().unwrap());
        empty(self.agent.set_time(time, deadline(context)).await)
    }

    async fn reseed_random_dev(
        &self,
        context: &TtrpcContext,
        request: ReseedRandomDevRequest,
    ) -> ttrpc::Result<Empty> {
        empty(self.agent.reseed_random(&request.data, deadline(context)).await)
    }

    async fn update_interface(
        &self,
        context: &TtrpcContext,
        request: UpdateInterfaceRequest,
    ) -> ttrpc::Result<Interface> {
        let wanted = interface(&request.interface);
        let updated = self.agent.update_interface(&wanted, deadline(context)).await.map_err(status)?;
        Ok(interface_message(&updated))
    }

    async fn list_interfaces(
        &self,
        context: &TtrpcContext,
        request: ListInterfacesRequest,
    ) -> ttrpc::Result<Interfaces> {
        let _ = request;
        let list = self.agent.interfaces(deadline(context)).await.map_err(status)?;
        Ok(Interfaces { interfaces: list.iter().map(interface_message).collect(), ..Default::default() })
    }

    async fn update_routes(
        &self,
        context: &TtrpcContext,
        request: UpdateRoutesRequest,
    ) -> ttrpc::Result<Routes> {
        let routes: Vec<_> = request.routes.routes.iter().map(route).collect();
        let routes = self.agent.update_routes(&routes, deadline(context)).await.map_err(status)?;
        Ok(routes_message(&routes))
    }

    async fn list_routes(&self, context: &TtrpcContext, request: ListRoutesRequest) -> ttrpc::Result<Routes> {
        let _ = request;
        Ok(routes_message(&self.agent.routes(deadline(context)).await.map_err(status)?))
    }

    async fn add_arp_neighbors(
        &self,
        context: &TtrpcContext,
        request: AddARPNeighborsRequest,
    ) -> ttrpc::Result<Empty> {
        let neighbors: Vec<_> = request.neighbors.arp_neighbors.iter().map(neighbor).collect();
        empty(self.agent.add_neighbors(&neighbors, deadline(context)).await)
    }

    async fn get_ip_tables(
        &self,
        context: &TtrpcContext,
        request: GetIPTablesRequest,
    ) -> ttrpc::Result<GetIPTablesResponse> {
        let family = if request.is_ipv6 { IpFamily::V6 } else { IpFamily::V4 };
        let data = self.agent.iptables(family, deadline(context)).await.map_err(status)?;
        Ok(GetIPTablesResponse { data, ..Default::default() })
    }

    async fn set_ip_tables(
        &self,
        context: &TtrpcContext,
        request: SetIPTablesRequest,
    ) -> ttrpc::Result<SetIPTablesResponse> {
        let family = if request.is_ipv6 { IpFamily::V6 } else { IpFamily::V4 };
        let data = self.agent.set_iptables(family, &request.data, deadline(context)).await.map_err(status)?;
        Ok(SetIPTablesResponse { data, ..Default::default() })
    }

    async fn copy_file(&self, context: &TtrpcContext, request: CopyFileRequest) -> ttrpc::Result<Empty> {
        empty(self.agent.copy_file(&copy_file(&request), deadline(context)).await)
    }

    async fn get_volume_stats(
        &self,
        context: &TtrpcContext,
        request: VolumeStatsRequest,
    ) -> ttrpc::Result<VolumeStatsResponse> {
        let stats = self.agent.volume_stats(&path(&request.volume_guest_path), deadline(context)).await;
        stats.map(|stats| volume_message(&stats)).map_err(status)
    }

    async fn resize_volume(
        &self,
        context: &TtrpcContext,
        request: ResizeVolumeRequest,
    ) -> ttrpc::Result<Empty> {
        let volume = path(&request.volume_guest_path);
        empty(self.agent.resize_volume(&volume, request.size, deadline(context)).await)
    }

    async fn update_ephemeral_mounts(
        &self,
        context: &TtrpcContext,
        request: UpdateEphemeralMountsRequest,
    ) -> ttrpc::Result<Empty> {
        let storages: Vec<_> = request.storages.iter().map(storage).collect();
        empty(self.agent.update_ephemeral_mounts(&storages, deadline(context)).await)
    }

    async fn remove_stale_virtiofs_share_mounts(
        &self,
        context: &TtrpcContext,
        request: RemoveStaleVirtiofsShareMountsRequest,
    ) -> ttrpc::Result<Empty> {
        let _ = request;
        empty(self.agent.remove_stale_shares(deadline(context)).await)
    }

    async fn update_container(
        &self,
        context: &TtrpcContext,
        request: UpdateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let resources = LinuxResources::try_from(request.resources.as_ref().unwrap()).unwrap();
        let id = request.container_id.parse().unwrap();
        empty(self.agent.update_container(&id, &resources, deadline(context)).await)
    }

    async fn pause_container(
        &self,
        context: &TtrpcContext,
        request: PauseContainerRequest,
    ) -> ttrpc::Result<Empty> {
        empty(self.agent.pause_container(&request.container_id.parse().unwrap(), deadline(context)).await)
    }

    async fn resume_container(
        &self,
        context: &TtrpcContext,
        request: ResumeContainerRequest,
    ) -> ttrpc::Result<Empty> {
        empty(self.agent.resume_container(&request.container_id.parse().unwrap(), deadline(context)).await)
    }

    async fn stats_container(
        &self,
        context: &TtrpcContext,
        request: StatsContainerRequest,
    ) -> ttrpc::Result<StatsContainerResponse> {
        let stats =
            self.agent.container_stats(&request.container_id.parse().unwrap(), deadline(context)).await;
        stats.map(|stats| stats_message(&stats)).map_err(status)
    }

    async fn exec_process(
        &self,
        context: &TtrpcContext,
        request: ExecProcessRequest,
    ) -> ttrpc::Result<Empty> {
        let exec = ExecProcess {
            container: request.container_id.parse().unwrap(),
            exec: request.exec_id.parse().unwrap(),
            process: Process::try_from(request.process.as_ref().unwrap()).unwrap(),
        };
        let started = self.agent.exec(&exec, deadline(context)).await;
        if started.is_ok() {
            self.told.lock().unwrap().remove(&exec.reference());
        }
        empty(started)
    }
}
