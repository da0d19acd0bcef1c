//! `grpc.AgentService`. Methods that are not here answer UNIMPLEMENTED.

use super::{at_once, blocking, call, log_failure};
use crate::block::wait_for_block;
use crate::container::{self, Process};
use crate::error::CallError;
use crate::guest::Guest;
use crate::{machine, network, sandbox};
use async_trait::async_trait;
use nix::errno::Errno;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use ttrpc::asynchronous::TtrpcContext;
use vc_agent_protocol::agent::{
    AddARPNeighborsRequest, AddSwapPathRequest, AddSwapRequest, CloseStdinRequest, CopyFileRequest,
    CreateContainerRequest, CreateSandboxRequest, DestroySandboxRequest, Empty, ExecProcessRequest,
    GetDiagnosticDataRequest, GetDiagnosticDataResponse, GetIPTablesRequest, GetIPTablesResponse,
    GetMetricsRequest, GetOOMEventRequest, GuestDetailsRequest, GuestDetailsResponse, Interfaces,
    ListInterfacesRequest, ListRoutesRequest, MemHotplugByProbeRequest, Metrics, OOMEvent,
    OnlineCPUMemRequest, PauseContainerRequest, RemoveContainerRequest,
    RemoveStaleVirtiofsShareMountsRequest, ReseedRandomDevRequest, ResizeVolumeRequest,
    ResumeContainerRequest, Routes, SetGuestDateTimeRequest, SetIPTablesRequest, SetIPTablesResponse,
    SignalProcessRequest, StartContainerRequest, StatsContainerRequest, StatsContainerResponse,
    TtyWinResizeRequest, UpdateContainerRequest, UpdateEphemeralMountsRequest, UpdateInterfaceRequest,
    UpdateRoutesRequest, VolumeStatsRequest, WaitProcessRequest, WaitProcessResponse, WriteStreamRequest,
    WriteStreamResponse,
};
use vc_agent_protocol::agent_ttrpc;
use vc_agent_protocol::csi::VolumeStatsResponse;
use vc_agent_protocol::types::Interface;
use vc_types::Deadline;

/// How long a plugged processor, disk or network interface may take to appear.
const DEVICE_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Agent(pub(super) Guest);

#[async_trait]
impl agent_ttrpc::AgentService for Agent {
    async fn get_guest_details(
        &self,
        _: &TtrpcContext,
        request: GuestDetailsRequest,
    ) -> ttrpc::Result<GuestDetailsResponse> {
        blocking("GetGuestDetails", move || Ok(machine::details(&request))).await
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
        let work = async move { guest.container(&request.container_id)?.start().await };
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
        // As reading a stream: an end must not be told to a host that has gone.
        let wait = async {
            let container = self.0.container(&request.container_id)?;
            let process = container.process(&request.exec_id)?;
            let status = process.wait().await;
            container.forget_if_done(&process);
            Ok(WaitProcessResponse { status, ..Default::default() })
        };
        Ok(wait.await.inspect_err(|error| log_failure("WaitProcess", error))?)
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
        at_once("StatsContainer", || Ok(self.0.container(&request.container_id)?.stats()))
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

    // ReadStdout and ReadStderr never come here: see `reading`.

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
    async fn update_ephemeral_mounts(
        &self,
        _: &TtrpcContext,
        request: UpdateEphemeralMountsRequest,
    ) -> ttrpc::Result<Empty> {
        let storages = self.0.storages().clone();
        empty(blocking("UpdateEphemeralMounts", move || Ok(storages.update(&request.storages)?)).await)
    }

    async fn remove_stale_virtiofs_share_mounts(
        &self,
        _: &TtrpcContext,
        _: RemoveStaleVirtiofsShareMountsRequest,
    ) -> ttrpc::Result<Empty> {
        let work = || {
            crate::mount::look_at_shares();
            Ok(())
        };
        empty(blocking("RemoveStaleVirtiofsShareMounts", work).await)
    }

    async fn online_cpu_mem(&self, _: &TtrpcContext, request: OnlineCPUMemRequest) -> ttrpc::Result<Empty> {
        let events = self.0.events();
        let work = async move {
            let cpus = usize::try_from(request.nb_cpus).map_err(|_| CallError::Range("the processors"))?;
            let deadline = Deadline::after(DEVICE_WAIT);
            Ok(machine::bring_online(Path::new("/"), cpus, request.cpu_only, events, deadline).await?)
        };
        empty(call("OnlineCPUMem", work).await)
    }

    async fn mem_hotplug_by_probe(
        &self,
        _: &TtrpcContext,
        request: MemHotplugByProbeRequest,
    ) -> ttrpc::Result<Empty> {
        let work = move || Ok(machine::probe_memory(Path::new("/"), &request.mem_hotplug_probe_addr)?);
        empty(blocking("MemHotplugByProbe", work).await)
    }

    async fn set_guest_date_time(
        &self,
        _: &TtrpcContext,
        request: SetGuestDateTimeRequest,
    ) -> ttrpc::Result<Empty> {
        empty(blocking("SetGuestDateTime", move || machine::set_clock(&request)).await)
    }

    async fn reseed_random_dev(
        &self,
        _: &TtrpcContext,
        request: ReseedRandomDevRequest,
    ) -> ttrpc::Result<Empty> {
        empty(blocking("ReseedRandomDev", move || machine::reseed(&request.data)).await)
    }

    async fn copy_file(&self, _: &TtrpcContext, request: CopyFileRequest) -> ttrpc::Result<Empty> {
        empty(blocking("CopyFile", move || Ok(machine::copy_file(Path::new("/"), &request)?)).await)
    }

    async fn add_swap(&self, _: &TtrpcContext, request: AddSwapRequest) -> ttrpc::Result<Empty> {
        let guest = self.0.clone();
        let work = async move {
            let device = machine::swap_device(&request.pci_path)?;
            let deadline = Deadline::after(DEVICE_WAIT);
            let device = wait_for_block(Path::new("/"), &device, guest.events(), deadline).await?;
            tokio::task::spawn_blocking(move || machine::add_swap(&device))
                .await
                .unwrap_or(Err(CallError::Panicked))
        };
        empty(call("AddSwap", work).await)
    }

    async fn add_swap_path(&self, _: &TtrpcContext, request: AddSwapPathRequest) -> ttrpc::Result<Empty> {
        empty(blocking("AddSwapPath", move || machine::add_swap(Path::new(&request.path))).await)
    }

    async fn get_volume_stats(
        &self,
        _: &TtrpcContext,
        request: VolumeStatsRequest,
    ) -> ttrpc::Result<VolumeStatsResponse> {
        blocking("GetVolumeStats", move || Ok(machine::stats(&request.volume_guest_path)?)).await
    }

    async fn resize_volume(&self, _: &TtrpcContext, request: ResizeVolumeRequest) -> ttrpc::Result<Empty> {
        let events = self.0.events();
        let work = async move {
            let deadline = Deadline::after(DEVICE_WAIT);
            Ok(machine::resize(&request.volume_guest_path, request.size, events, deadline).await?)
        };
        empty(call("ResizeVolume", work).await)
    }

    async fn get_metrics(&self, _: &TtrpcContext, _: GetMetricsRequest) -> ttrpc::Result<Metrics> {
        let spent = self.0.launcher().spent();
        let metrics = move || {
            Ok(Metrics { metrics: machine::metrics(Path::new("/proc"), spent), ..Default::default() })
        };
        blocking("GetMetrics", metrics).await
    }

    async fn get_diagnostic_data(
        &self,
        _: &TtrpcContext,
        request: GetDiagnosticDataRequest,
    ) -> ttrpc::Result<GetDiagnosticDataResponse> {
        let guest = self.0.clone();
        let work = move || {
            if request.log_type != "termination_log" {
                return Err(CallError::LogType(request.log_type.chars().take(200).collect()));
            }
            let data = guest.container(&request.container_id)?.termination_log()?;
            Ok(GetDiagnosticDataResponse { data, ..Default::default() })
        };
        blocking("GetDiagnosticData", work).await
    }

    async fn update_interface(
        &self,
        _: &TtrpcContext,
        request: UpdateInterfaceRequest,
    ) -> ttrpc::Result<Interface> {
        let guest = self.0.clone();
        call("UpdateInterface", async move {
            let modules = guest.modules().clone();
            tokio::task::spawn_blocking(move || network::load_drivers(&modules))
                .await
                .map_err(|_| CallError::Panicked)??;
            let deadline = Deadline::after(DEVICE_WAIT);
            Ok(network::update_interface(&request.interface, guest.events(), deadline).await?)
        })
        .await
    }

    async fn list_interfaces(&self, _: &TtrpcContext, _: ListInterfacesRequest) -> ttrpc::Result<Interfaces> {
        let list = || Ok(Interfaces { interfaces: network::list_interfaces()?, ..Default::default() });
        blocking("ListInterfaces", list).await
    }

    async fn update_routes(&self, _: &TtrpcContext, request: UpdateRoutesRequest) -> ttrpc::Result<Routes> {
        let work = move || {
            Ok(Routes { routes: network::update_routes(&request.routes.routes)?, ..Default::default() })
        };
        blocking("UpdateRoutes", work).await
    }

    async fn list_routes(&self, _: &TtrpcContext, _: ListRoutesRequest) -> ttrpc::Result<Routes> {
        let list = || Ok(Routes { routes: network::list_routes()?, ..Default::default() });
        blocking("ListRoutes", list).await
    }

    async fn add_arp_neighbors(
        &self,
        _: &TtrpcContext,
        request: AddARPNeighborsRequest,
    ) -> ttrpc::Result<Empty> {
        let work = move || Ok(network::add_neighbours(&request.neighbors.arp_neighbors)?);
        empty(blocking("AddARPNeighbors", work).await)
    }

    async fn get_ip_tables(
        &self,
        _: &TtrpcContext,
        request: GetIPTablesRequest,
    ) -> ttrpc::Result<GetIPTablesResponse> {
        let guest = self.0.clone();
        call("GetIPTables", async move {
            let data = network::get_iptables(guest.reaper(), request.is_ipv6).await?;
            Ok(GetIPTablesResponse { data, ..Default::default() })
        })
        .await
    }

    async fn set_ip_tables(
        &self,
        _: &TtrpcContext,
        request: SetIPTablesRequest,
    ) -> ttrpc::Result<SetIPTablesResponse> {
        let guest = self.0.clone();
        call("SetIPTables", async move {
            let data = network::set_iptables(guest.reaper(), request.is_ipv6, &request.data).await?;
            Ok(SetIPTablesResponse { data, ..Default::default() })
        })
        .await
    }
}

fn empty(result: ttrpc::Result<()>) -> ttrpc::Result<Empty> {
    result.map(|()| Empty::default())
}

fn process(guest: &Guest, container: &str, exec: &str) -> Result<Arc<Process>, CallError> {
    guest.container(container)?.process(exec)
}
