//! An agent with a call that goes wrong.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use oci_spec::runtime::LinuxResources;
use vc_agent::{
    Agent, AgentError, Call, Connect, ContainerStats, Containers, CopyFile, CreateContainer, CreateSandbox,
    Diagnostic, ExecProcess, ExitStatus, Guest, GuestDetails, Interface, IpFamily, Neighbor, Network, Online,
    ProcessRef, Processes, Route, Signal, SignalTarget, Storage, Streams, System, TerminalSize, VolumeStats,
    Volumes,
};
use vc_types::{AgentAddress, ContainerId, Deadline, GuestPath, PciPath};

use super::{Fault, Faults, passed};

/// How long a call may take that is done late.
const PATIENCE: Duration = Duration::from_secs(20);

type Done<T = ()> = Result<T, AgentError>;

pub(crate) struct FaultyConnector<C: Connect> {
    inner: C,
    faults: Faults,
    last: Mutex<Weak<C::Agent>>,
}

impl<C: Connect> FaultyConnector<C> {
    pub(crate) fn new(inner: C, faults: &Faults) -> Self {
        Self { inner, faults: faults.clone(), last: Mutex::default() }
    }

    /// The agent that was connected to last, as it is: no call goes wrong.
    pub(crate) fn agent(&self) -> Option<Arc<C::Agent>> {
        self.last.lock().unwrap().upgrade()
    }
}

impl<C: Connect> Connect for FaultyConnector<C> {
    type Agent = FaultyAgent<C::Agent>;

    async fn connect(&self, address: &AgentAddress, deadline: Deadline) -> Done<Self::Agent> {
        let connect = self.inner.connect(address, deadline);
        let agent = pass(&self.faults, Call::Check, Some(deadline), connect).await?;
        let inner = Arc::new(agent);
        *self.last.lock().unwrap() = Arc::downgrade(&inner);
        Ok(FaultyAgent { inner, faults: self.faults.clone() })
    }
}

#[derive(Debug)]
pub(crate) struct FaultyAgent<A> {
    inner: Arc<A>,
    faults: Faults,
}

/// Makes a call, or has it go wrong.
async fn pass<T>(
    faults: &Faults,
    call: Call,
    deadline: Option<Deadline>,
    work: impl Future<Output = Done<T>> + Send,
) -> Done<T> {
    if faults.is_disconnected() {
        return Err(AgentError::Disconnected { call });
    }
    match faults.meet(call) {
        None => work.await,
        Some(Fault::Refuse) => Err(AgentError::Refused { call, detail: "fault asked for".to_owned() }),
        Some(Fault::Hang | Fault::DoneLate) => {
            passed(deadline).await;
            Err(AgentError::Deadline { call })
        }
        Some(Fault::AnswerLate) => {
            drop(work.await);
            passed(deadline).await;
            Err(AgentError::Deadline { call })
        }
        Some(Fault::Vanish) => {
            faults.disconnect();
            Err(AgentError::Disconnected { call })
        }
    }
}

impl<A: Agent> FaultyAgent<A> {
    async fn pass<T>(
        &self,
        call: Call,
        deadline: Deadline,
        work: impl Future<Output = Done<T>> + Send,
    ) -> Done<T> {
        pass(&self.faults, call, Some(deadline), work).await
    }

    /// As [`FaultyAgent::pass`], for what the guest may do late.
    async fn pass_or_late<L>(
        &self,
        call: Call,
        deadline: Deadline,
        late: impl FnOnce(Arc<A>) -> L + Send,
        work: impl Future<Output = Done> + Send,
    ) -> Done
    where
        L: Future<Output = Done> + Send + 'static,
    {
        if self.faults.is_next(Fault::DoneLate) {
            self.faults.do_late(deadline, late(self.inner.clone()));
        }
        self.pass(call, deadline, work).await
    }
}

impl<A: Agent> Guest for FaultyAgent<A> {
    async fn check(&self, deadline: Deadline) -> Done {
        self.pass(Call::Check, deadline, self.inner.check(deadline)).await
    }

    async fn details(&self, deadline: Deadline) -> Done<GuestDetails> {
        self.pass(Call::GetGuestDetails, deadline, self.inner.details(deadline)).await
    }

    async fn create_sandbox(&self, request: &CreateSandbox, deadline: Deadline) -> Done {
        self.pass(Call::CreateSandbox, deadline, self.inner.create_sandbox(request, deadline)).await
    }

    async fn destroy_sandbox(&self, deadline: Deadline) -> Done {
        self.pass(Call::DestroySandbox, deadline, self.inner.destroy_sandbox(deadline)).await
    }

    async fn metrics(&self, deadline: Deadline) -> Done<String> {
        self.pass(Call::GetMetrics, deadline, self.inner.metrics(deadline)).await
    }

    async fn diagnostic(&self, id: &ContainerId, what: Diagnostic, deadline: Deadline) -> Done<String> {
        let work = self.inner.diagnostic(id, what, deadline);
        self.pass(Call::GetDiagnosticData, deadline, work).await
    }

    async fn oom_event(&self) -> Done<ContainerId> {
        pass(&self.faults, Call::GetOOMEvent, None, self.inner.oom_event()).await
    }
}

impl<A: Agent> System for FaultyAgent<A> {
    async fn online(&self, what: Online, deadline: Deadline) -> Done {
        self.pass(Call::OnlineCPUMem, deadline, self.inner.online(what, deadline)).await
    }

    async fn probe_memory(&self, addresses: &[u64], deadline: Deadline) -> Done {
        self.pass(Call::MemHotplugByProbe, deadline, self.inner.probe_memory(addresses, deadline)).await
    }

    async fn add_swap(&self, disk: &PciPath, deadline: Deadline) -> Done {
        self.pass(Call::AddSwap, deadline, self.inner.add_swap(disk, deadline)).await
    }

    async fn add_swap_file(&self, path: &GuestPath, deadline: Deadline) -> Done {
        self.pass(Call::AddSwapPath, deadline, self.inner.add_swap_file(path, deadline)).await
    }

    async fn set_time(&self, time: SystemTime, deadline: Deadline) -> Done {
        self.pass(Call::SetGuestDateTime, deadline, self.inner.set_time(time, deadline)).await
    }

    async fn reseed_random(&self, entropy: &[u8], deadline: Deadline) -> Done {
        self.pass(Call::ReseedRandomDev, deadline, self.inner.reseed_random(entropy, deadline)).await
    }
}

impl<A: Agent> Network for FaultyAgent<A> {
    async fn update_interface(&self, interface: &Interface, deadline: Deadline) -> Done<Interface> {
        let work = self.inner.update_interface(interface, deadline);
        self.pass(Call::UpdateInterface, deadline, work).await
    }

    async fn interfaces(&self, deadline: Deadline) -> Done<Vec<Interface>> {
        self.pass(Call::ListInterfaces, deadline, self.inner.interfaces(deadline)).await
    }

    async fn update_routes(&self, routes: &[Route], deadline: Deadline) -> Done<Vec<Route>> {
        self.pass(Call::UpdateRoutes, deadline, self.inner.update_routes(routes, deadline)).await
    }

    async fn routes(&self, deadline: Deadline) -> Done<Vec<Route>> {
        self.pass(Call::ListRoutes, deadline, self.inner.routes(deadline)).await
    }

    async fn add_neighbors(&self, neighbors: &[Neighbor], deadline: Deadline) -> Done {
        self.pass(Call::AddARPNeighbors, deadline, self.inner.add_neighbors(neighbors, deadline)).await
    }

    async fn iptables(&self, family: IpFamily, deadline: Deadline) -> Done<Vec<u8>> {
        self.pass(Call::GetIPTables, deadline, self.inner.iptables(family, deadline)).await
    }

    async fn set_iptables(&self, family: IpFamily, rules: &[u8], deadline: Deadline) -> Done<Vec<u8>> {
        self.pass(Call::SetIPTables, deadline, self.inner.set_iptables(family, rules, deadline)).await
    }
}

impl<A: Agent> Volumes for FaultyAgent<A> {
    async fn copy_file(&self, request: &CopyFile<'_>, deadline: Deadline) -> Done {
        self.pass(Call::CopyFile, deadline, self.inner.copy_file(request, deadline)).await
    }

    async fn volume_stats(&self, path: &GuestPath, deadline: Deadline) -> Done<VolumeStats> {
        self.pass(Call::GetVolumeStats, deadline, self.inner.volume_stats(path, deadline)).await
    }

    async fn resize_volume(&self, path: &GuestPath, bytes: u64, deadline: Deadline) -> Done {
        self.pass(Call::ResizeVolume, deadline, self.inner.resize_volume(path, bytes, deadline)).await
    }

    async fn update_ephemeral_mounts(&self, storages: &[Storage], deadline: Deadline) -> Done {
        let work = self.inner.update_ephemeral_mounts(storages, deadline);
        self.pass(Call::UpdateEphemeralMounts, deadline, work).await
    }

    async fn remove_stale_shares(&self, deadline: Deadline) -> Done {
        let work = self.inner.remove_stale_shares(deadline);
        self.pass(Call::RemoveStaleVirtiofsShareMounts, deadline, work).await
    }
}

impl<A: Agent> Containers for FaultyAgent<A> {
    async fn create_container(&self, request: &CreateContainer, deadline: Deadline) -> Done {
        let late = |agent: Arc<A>| {
            let request = request.clone();
            async move { agent.create_container(&request, Deadline::after(PATIENCE)).await }
        };
        let work = self.inner.create_container(request, deadline);
        self.pass_or_late(Call::CreateContainer, deadline, late, work).await
    }

    async fn start_container(&self, id: &ContainerId, deadline: Deadline) -> Done {
        let late = |agent: Arc<A>| {
            let id = id.clone();
            async move { agent.start_container(&id, Deadline::after(PATIENCE)).await }
        };
        let work = self.inner.start_container(id, deadline);
        self.pass_or_late(Call::StartContainer, deadline, late, work).await
    }

    async fn remove_container(&self, id: &ContainerId, deadline: Deadline) -> Done {
        self.pass(Call::RemoveContainer, deadline, self.inner.remove_container(id, deadline)).await
    }

    async fn update_container(
        &self,
        id: &ContainerId,
        resources: &LinuxResources,
        deadline: Deadline,
    ) -> Done {
        let work = self.inner.update_container(id, resources, deadline);
        self.pass(Call::UpdateContainer, deadline, work).await
    }

    async fn pause_container(&self, id: &ContainerId, deadline: Deadline) -> Done {
        self.pass(Call::PauseContainer, deadline, self.inner.pause_container(id, deadline)).await
    }

    async fn resume_container(&self, id: &ContainerId, deadline: Deadline) -> Done {
        self.pass(Call::ResumeContainer, deadline, self.inner.resume_container(id, deadline)).await
    }

    async fn container_stats(&self, id: &ContainerId, deadline: Deadline) -> Done<ContainerStats> {
        self.pass(Call::StatsContainer, deadline, self.inner.container_stats(id, deadline)).await
    }
}

impl<A: Agent> Processes for FaultyAgent<A> {
    async fn exec(&self, request: &ExecProcess, deadline: Deadline) -> Done {
        let late = |agent: Arc<A>| {
            let request = request.clone();
            async move { agent.exec(&request, Deadline::after(PATIENCE)).await }
        };
        let work = self.inner.exec(request, deadline);
        self.pass_or_late(Call::ExecProcess, deadline, late, work).await
    }

    async fn signal(&self, target: &SignalTarget, signal: Signal, deadline: Deadline) -> Done {
        self.pass(Call::SignalProcess, deadline, self.inner.signal(target, signal, deadline)).await
    }

    async fn wait(&self, process: &ProcessRef) -> Done<ExitStatus> {
        pass(&self.faults, Call::WaitProcess, None, self.inner.wait(process)).await
    }

    async fn resize_terminal(&self, process: &ProcessRef, size: TerminalSize, deadline: Deadline) -> Done {
        let work = self.inner.resize_terminal(process, size, deadline);
        self.pass(Call::TtyWinResize, deadline, work).await
    }
}

impl<A: Agent> Streams for FaultyAgent<A> {
    async fn write_stdin(&self, process: &ProcessRef, data: &[u8]) -> Done<usize> {
        pass(&self.faults, Call::WriteStdin, None, self.inner.write_stdin(process, data)).await
    }

    async fn close_stdin(&self, process: &ProcessRef, deadline: Deadline) -> Done {
        self.pass(Call::CloseStdin, deadline, self.inner.close_stdin(process, deadline)).await
    }

    async fn read_stdout(&self, process: &ProcessRef, most: u32) -> Done<Vec<u8>> {
        pass(&self.faults, Call::ReadStdout, None, self.inner.read_stdout(process, most)).await
    }

    async fn read_stderr(&self, process: &ProcessRef, most: u32) -> Done<Vec<u8>> {
        pass(&self.faults, Call::ReadStderr, None, self.inner.read_stderr(process, most)).await
    }
}
