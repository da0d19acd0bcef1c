//! What is in the guest, and what each call does to it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use oci_spec::runtime::{LinuxResources, Process as ProcessSpec};
use vc_types::{ContainerId, ExecId, GuestPath, SandboxId};

use super::files::Files;
use super::mounts::Mounts;
use super::net::Net;
use super::process::{KILLED, Process, Program};
use crate::{
    AgentError, Call, ContainerStats, CreateContainer, CreateSandbox, ExecProcess, ExitStatus, Feature,
    MemoryUsage, NetworkStats, PidsStats, ProcessRef,
};

/// Where agents keep the sandbox's `resolv.conf`, for containers to bind.
const RESOLV_CONF: &str = "/run/kata-containers/sandbox/resolv.conf";

/// What is left in the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The sandbox, from its creation until it is destroyed.
    pub sandbox: Option<SandboxId>,
    /// The containers, by name.
    pub containers: Vec<ContainerId>,
    /// Where something is mounted, by path.
    pub mounts: Vec<GuestPath>,
}

#[derive(Debug, Default)]
pub(super) struct World {
    sandbox: Option<CreateSandbox>,
    containers: BTreeMap<ContainerId, Container>,
    pub(super) mounts: Mounts,
    pub(super) files: Files,
    pub(super) net: Net,
    pub(super) time: Option<SystemTime>,
    pub(super) oom_events: VecDeque<ContainerId>,
    /// Those that were plugged and are not in use yet.
    pub(super) plugged_processors: u32,
    pub(super) programs: HashMap<String, Program>,
    /// The kinds of device that containers can be given.
    pub(super) device_kinds: Vec<String>,
    /// What the agent can do beyond the agent protocol.
    pub(super) features: Vec<Feature>,
}

#[derive(Debug)]
struct Container {
    request: CreateContainer,
    resources: LinuxResources,
    started: bool,
    paused: bool,
    init: Process,
    execs: BTreeMap<ExecId, Process>,
}

pub(super) type Done<T = ()> = Result<T, AgentError>;

pub(super) fn refused<T>(call: Call, detail: &str) -> Done<T> {
    Err(AgentError::Refused { call, detail: detail.to_owned() })
}

impl World {
    pub(super) fn left(&self) -> Left {
        Left {
            sandbox: self.sandbox.as_ref().map(|sandbox| sandbox.id.clone()),
            containers: self.containers.keys().cloned().collect(),
            mounts: self.mounts.points(),
        }
    }

    pub(super) fn request(&self, id: &ContainerId) -> Option<&CreateContainer> {
        self.containers.get(id).map(|container| &container.request)
    }

    pub(super) fn create_sandbox(&mut self, request: &CreateSandbox) -> Done {
        if self.sandbox.is_some() {
            return refused(Call::CreateSandbox, "this sandbox was created already");
        }
        self.mounts.add(Call::CreateSandbox, &request.storages)?;
        let lines = request.dns.iter().map(|line| format!("{line}\n")).collect::<String>();
        self.files.put(RESOLV_CONF, lines.into_bytes());
        self.sandbox = Some(request.clone());
        Ok(())
    }

    pub(super) fn destroy_sandbox(&mut self) -> Done {
        if self.sandbox.take().is_none() {
            return refused(Call::DestroySandbox, "there is no sandbox");
        }
        self.containers.clear();
        self.mounts.clear();
        Ok(())
    }

    pub(super) fn create_container(&mut self, request: &CreateContainer) -> Done {
        let call = Call::CreateContainer;
        if self.sandbox.is_none() {
            return refused(call, "there is no sandbox");
        }
        if self.containers.contains_key(&request.id) {
            return Err(AgentError::ContainerExists { detail: request.id.to_string() });
        }
        if let Some(device) = request.devices.iter().find(|device| !self.device_kinds.contains(&device.kind))
        {
            return refused(call, &format!("no device handler for {:?}", device.kind));
        }
        self.mounts.add(call, &request.storages)?;
        match self.process(call, request, request.spec.process().as_ref()) {
            Ok(init) => {
                let linux = request.spec.linux().as_ref();
                let container = Container {
                    request: request.clone(),
                    resources: linux.and_then(|linux| linux.resources().clone()).unwrap_or_default(),
                    started: false,
                    paused: false,
                    init,
                    execs: BTreeMap::new(),
                };
                self.containers.insert(request.id.clone(), container);
                Ok(())
            }
            Err(error) => {
                self.mounts.remove(&request.storages);
                Err(error)
            }
        }
    }

    /// The process that `spec` describes, in the container of `request`.
    fn process(&self, call: Call, request: &CreateContainer, spec: Option<&ProcessSpec>) -> Done<Process> {
        let command = spec.and_then(|spec| spec.args().as_ref()).map(|args| args.join(" "));
        let Some(command) = command.filter(|command| !command.is_empty()) else {
            return refused(call, "the process has no command");
        };
        let has_terminal = spec.and_then(ProcessSpec::terminal).unwrap_or(false);
        let prints = |stdout: Vec<u8>, status| Program::Prints { stdout, stderr: vec![], status };
        let program = match self.programs.get(&command).cloned().unwrap_or(Program::Waits) {
            Program::Missing => {
                return Err(AgentError::ExecutableNotFound { detail: format!("{command:?}: not found") });
            }
            Program::NotExecutable => {
                let detail = format!("{command:?}: cannot be executed");
                return Err(AgentError::NotExecutable { detail });
            }
            Program::PrintsFile(path) => match self.bound(request, &path) {
                Some(bytes) => prints(bytes.to_vec(), ExitStatus(0)),
                None => prints(vec![], ExitStatus(1)),
            },
            Program::PrintsTime => {
                let since = self.time.unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH).unwrap_or_default();
                prints(format!("{}\n", since.as_secs()).into_bytes(), ExitStatus(0))
            }
            program => program,
        };
        Ok(Process::new(program, has_terminal))
    }

    /// The file that a container of `request` has at `path`.
    fn bound(&self, request: &CreateContainer, path: &str) -> Option<&[u8]> {
        let mut mounts = request.spec.mounts().iter().flatten();
        let mount = mounts.find(|mount| mount.destination().to_str() == Some(path))?;
        self.files.get(mount.source().as_ref()?.to_str()?)
    }

    pub(super) fn start_container(&mut self, id: &ContainerId) -> Done {
        let container = self.container(Call::StartContainer, id)?;
        if container.started {
            return refused(Call::StartContainer, "the container was started before");
        }
        if container.init.status.is_some() {
            return refused(Call::StartContainer, "the container's process has ended");
        }
        container.started = true;
        container.init.start();
        self.settle(id);
        Ok(())
    }

    pub(super) fn exec(&mut self, request: &ExecProcess) -> Done {
        let call = Call::ExecProcess;
        let container = self.container(call, &request.container)?;
        if !container.started || container.paused || container.init.status.is_some() {
            return refused(call, "the container does not run");
        }
        let known = container.execs.get(&request.exec);
        let is_init = request.exec.as_str() == request.container.as_str();
        if is_init || known.is_some_and(|process| !process.was_waited_for) {
            return Err(AgentError::ProcessExists { detail: request.exec.to_string() });
        }
        let of = container.request.clone();
        let mut process = self.process(call, &of, Some(&request.process))?;
        process.start();
        self.container(call, &request.container)?.execs.insert(request.exec.clone(), process);
        self.settle(&request.container);
        Ok(())
    }

    /// Lets follow what follows from the processes' deeds: who takes too much memory is killed, and the
    /// end of the init process ends the others.
    pub(super) fn settle(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let limited = container.resources.memory().as_ref().and_then(|memory| memory.limit());
        let processes = container.execs.values_mut().chain([&mut container.init]);
        for process in processes.filter(|process| limited.is_some() && process.hogs()) {
            process.end(KILLED);
            self.oom_events.push_back(id.clone());
        }
        if container.init.status.is_some() {
            container.execs.values_mut().for_each(|process| process.end(KILLED));
        }
    }

    pub(super) fn remove_container(&mut self, id: &ContainerId) -> Done {
        let call = Call::RemoveContainer;
        let gone = self.containers.remove(id);
        let gone = gone.ok_or_else(|| AgentError::NoSuchContainer { call, detail: id.to_string() })?;
        self.mounts.remove(&gone.request.storages);
        Ok(())
    }

    pub(super) fn update_container(&mut self, id: &ContainerId, wanted: &LinuxResources) -> Done {
        let resources = &mut self.container(Call::UpdateContainer, id)?.resources;
        if let Some(memory) = wanted.memory().as_ref() {
            resources.set_memory(Some(*memory));
        }
        if let Some(cpu) = wanted.cpu().as_ref() {
            resources.set_cpu(Some(cpu.clone()));
        }
        if let Some(pids) = wanted.pids().as_ref() {
            resources.set_pids(Some(*pids));
        }
        Ok(())
    }

    pub(super) fn pause(&mut self, call: Call, id: &ContainerId, pause: bool) -> Done {
        let container = self.container(call, id)?;
        if !container.started || container.paused == pause || container.init.status.is_some() {
            return refused(call, "the container is not in a state for it");
        }
        container.paused = pause;
        container.init.freeze(pause);
        container.execs.values_mut().for_each(|process| process.freeze(pause));
        Ok(())
    }

    pub(super) fn stats(&mut self, id: &ContainerId) -> Done<ContainerStats> {
        let interfaces = self.net.interfaces.iter().map(|interface| interface.name.clone());
        let network = interfaces.map(|name| NetworkStats { name, ..NetworkStats::default() }).collect();
        let container = self.container(Call::StatsContainer, id)?;
        let processes = container.execs.values().chain([&container.init]);
        let running = processes.filter(|process| process.status.is_none()).count();
        let current = u64::try_from(running).unwrap_or(u64::MAX);
        let limit = |limit: Option<i64>| limit.and_then(|limit| u64::try_from(limit).ok());
        let memory = container.resources.memory().as_ref().and_then(|memory| memory.limit());
        let pids = container.resources.pids().as_ref().map(|pids| pids.limit());
        let mut stats = ContainerStats { network, ..ContainerStats::default() };
        stats.cpu.total = current * 1_000_000;
        stats.pids = PidsStats { current, limit: limit(pids).unwrap_or(0) };
        stats.memory.usage = MemoryUsage {
            current: current << 20,
            peak: current << 20,
            failures: 0,
            limit: limit(memory).unwrap_or(u64::MAX),
        };
        Ok(stats)
    }

    /// The process as the streams see it: it is gone once its exit status was told.
    pub(super) fn with_streams(&mut self, call: Call, process: &ProcessRef) -> Done<&mut Process> {
        let found = self.find(call, process)?;
        if found.was_waited_for {
            return Err(AgentError::NoSuchProcess { call, detail: process.to_string() });
        }
        Ok(found)
    }

    pub(super) fn find(&mut self, call: Call, process: &ProcessRef) -> Done<&mut Process> {
        let container = self.container(call, &process.container)?;
        let found = match &process.exec {
            None => Some(&mut container.init),
            Some(exec) => container.execs.get_mut(exec),
        };
        found.ok_or_else(|| AgentError::NoSuchProcess { call, detail: process.to_string() })
    }

    /// Every process of a container, the init process first.
    pub(super) fn all(&mut self, call: Call, id: &ContainerId) -> Done<impl Iterator<Item = &mut Process>> {
        let container = self.container(call, id)?;
        Ok([&mut container.init].into_iter().chain(container.execs.values_mut()))
    }

    fn container(&mut self, call: Call, id: &ContainerId) -> Done<&mut Container> {
        let container = self.containers.get_mut(id);
        container.ok_or_else(|| AgentError::NoSuchContainer { call, detail: id.to_string() })
    }

    pub(super) fn diagnostic(&mut self, id: &ContainerId) -> Done<String> {
        self.container(Call::GetDiagnosticData, id).map(|_| String::new())
    }
}
