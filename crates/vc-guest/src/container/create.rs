//! CreateContainer: storages, specification, executor; and the undo of each.

use super::console::Console;
use super::user_namespace::UserNamespace;
use super::{Container, EXECUTOR_WAIT, Process as ContainerProcess, Processes, Stage};
use crate::cgroup::Cgroup;
use crate::devices;
use crate::error::CallError;
use crate::executor::{Joining, Launcher, Task};
use crate::guest::{Guest, parse_id};
use crate::hooks::{self, LateHooks};
use crate::log::chain;
use crate::resources::limits;
use crate::spec::{SpecError, container_spec};
use crate::stdio::Streams;
use oci_spec::runtime::{LinuxNamespace, Process, Spec};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;
use vc_agent_protocol::agent::CreateContainerRequest;
use vc_types::{ContainerId, Deadline, GuestPath};

/// Where the agent keeps a directory per container.
const BUNDLES: &str = "/run/vc/bundles";

/// How long the processes of a container that failed may take to go.
const UNDO_WAIT: Duration = Duration::from_secs(10);

/// Creates the container of the request; on an error nothing of it is left.
pub(crate) async fn create(guest: &Guest, request: CreateContainerRequest) -> Result<(), CallError> {
    let id = parse_id(&request.container_id)?;
    if !request.shared_mounts.is_empty() || request.stdin_port + request.stdout_port + request.stderr_port > 0
    {
        return Err(CallError::Unsupported("shared mounts and streams on ports of their own"));
    }
    if request.string_user.is_some() {
        return Err(CallError::Unsupported("users by name"));
    }
    let reservation = guest.reserve(&id)?;
    guest.modules_loaded().await?;
    let shared_pid = if request.sandbox_pidns { shared_pid_namespace(guest)? } else { None };
    let mut spec = container_spec(&request.oci, &id, shared_pid.as_deref())?;
    if let Some(sandbox) = &*guest.sandbox() {
        hooks::add(&mut spec, &sandbox.hooks);
    }
    let mount_points = guest.storages().add(id.as_str(), &request.storages).await?;
    let created = async {
        super::device::use_guest_numbers(guest, &request.devices, &mut spec).await?;
        let before = super::sysctl::set_those_of_the_guest(&mut spec)?;
        let created = create_mounted(guest, &id, spec, &mount_points).await;
        if created.is_err() {
            before.restore();
        }
        created
    };
    match created.await {
        Ok(container) => {
            guest.storages().keep(&mount_points);
            share_pids_of(guest, &container);
            reservation.fill(container.into());
            Ok(())
        }
        Err(error) => {
            release(guest, mount_points).await;
            Err(error)
        }
    }
}

/// Of a sandbox that has no pid namespace for it, the first container's is what others may share, as with Kata's agent.
fn share_pids_of(guest: &Guest, container: &Container) {
    if let (Some(sandbox), Ok(init)) = (&mut *guest.sandbox(), container.process("")) {
        sandbox.pid_namespace.get_or_insert_with(|| (init.pid, init.exit.clone()));
    }
}

async fn create_mounted(
    guest: &Guest,
    id: &ContainerId,
    mut spec: Spec,
    mount_points: &[GuestPath],
) -> Result<Container, CallError> {
    let bundle = Path::new(BUNDLES).join(id.as_str());
    let cgroup = make_cgroup(guest, &mut spec)?;
    let joining = joining(&spec, &cgroup);
    let launched = async {
        // Of no more use once the container is in it.
        let _users = UserNamespace::make(guest, &mut spec).await?;
        super::copy_up::fill(&mut spec, &bundle, guest.modules()).await?;
        write_bundle(&bundle, &spec)?;
        let process = spec.process().as_ref().ok_or(SpecError::Missing("process"))?;
        let rlimits = process.rlimits().clone().unwrap_or_default();
        let task = |console| Task::Create { id: id.to_string(), bundle: bundle.clone(), rlimits, console };
        launch(guest.launcher(), task, Terminal::of(process)?, None, &bundle).await
    };
    match launched.await {
        Ok(launched) => {
            let process = launched.into_process(id.to_string(), true, guest.launcher());
            let init = process.pid;
            let watching = guest.oom_kills().clone().watch(id.clone(), cgroup.clone());
            Ok(Container {
                id: id.clone(),
                joining,
                hooks: LateHooks::of(&spec, id.as_str(), &bundle),
                cgroup,
                init,
                counters: OnceLock::new(),
                processes: Mutex::new(Processes::starting_with(process)),
                bundle,
                launcher: guest.launcher().clone(),
                mount_points: Mutex::new(mount_points.to_vec()),
                stage: Mutex::new(Stage::Created),
                launching: tokio::sync::RwLock::default(),
                oom_watch: tokio::spawn(watching).abort_handle(),
            })
        }
        Err(error) => {
            undo(id, &cgroup, &bundle).await;
            Err(error)
        }
    }
}

/// The container's cgroup with the limits and device rules of `spec`; libcontainer only joins it.
fn make_cgroup(guest: &Guest, spec: &mut Spec) -> Result<Cgroup, CallError> {
    let linux = spec.linux_mut().as_mut().ok_or(SpecError::Missing("linux part"))?;
    let path = linux.cgroups_path().clone().unwrap_or_default();
    let resources = linux.resources().clone().unwrap_or_default();
    linux.set_resources(None);
    let cgroup = Cgroup::new(guest.cgroup_root(), &path);
    cgroup.create(guest.cgroup_root())?;
    let limited = || {
        cgroup.limit(&limits(&resources, "max").map_err(SpecError::from)?)?;
        match resources.devices().as_deref() {
            None | Some([]) => Ok(()),
            Some(rules) => Ok::<_, CallError>(devices::enforce(rules, &cgroup)?),
        }
    };
    match limited() {
        Ok(()) => Ok(cgroup),
        Err(error) => {
            if let Err(error) = cgroup.remove() {
                tracing::warn!(error = chain(&error), "undo failed");
            }
            Err(error)
        }
    }
}

/// What an exec needs to know of the container.
fn joining(spec: &Spec, cgroup: &Cgroup) -> Joining {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten();
    Joining {
        namespaces: namespaces.map(LinuxNamespace::typ).collect(),
        seccomp: linux.and_then(|linux| linux.seccomp().clone()),
        cgroup: cgroup.path().to_owned(),
    }
}

/// A process just made, with the host's ends of its streams.
pub(super) struct Launched {
    pid: nix::unistd::Pid,
    exit: crate::reaper::Exit,
    streams: Streams,
}

impl Launched {
    pub(super) fn into_process(self, id: String, is_init: bool, launcher: &Launcher) -> ContainerProcess {
        ContainerProcess {
            id,
            pid: self.pid,
            exit: self.exit,
            streams: self.streams,
            is_init,
            waited: AtomicBool::new(false),
            reaper: launcher.reaper.clone(),
        }
    }
}

/// Whether a process has a terminal, and of what size at first.
#[derive(Clone, Copy, Debug)]
pub(super) enum Terminal {
    None,
    Default,
    Sized { rows: u16, columns: u16 },
}

impl Terminal {
    pub(super) fn of(process: &Process) -> Result<Self, CallError> {
        let size = |number| u16::try_from(number).map_err(|_| CallError::Range("process.consoleSize"));
        Ok(match (process.terminal().unwrap_or(false), process.console_size()) {
            (false, _) => Self::None,
            (true, None) => Self::Default,
            (true, Some(given)) => Self::Sized { rows: size(given.height())?, columns: size(given.width())? },
        })
    }
}

/// Has the executor make a process, with a terminal or with pipes.
pub(super) async fn launch(
    launcher: &Launcher,
    task: impl FnOnce(Option<PathBuf>) -> Task,
    terminal: Terminal,
    init: Option<OwnedFd>,
    directory: &Path,
) -> Result<Launched, CallError> {
    let deadline = Deadline::after(EXECUTOR_WAIT);
    if matches!(terminal, Terminal::None) {
        let (streams, theirs) = Streams::pipes().map_err(|error| CallError::Stream("make pipes", error))?;
        let (pid, exit) = launcher.launch(&task(None), Some(theirs), init, deadline).await?;
        return Ok(Launched { pid, exit, streams });
    }
    let console = Console::listen(directory)?;
    let (pid, exit) = launcher.launch(&task(Some(console.path())), None, init, deadline).await?;
    let streams = async {
        let master = console.terminal(deadline).await?;
        let streams =
            Streams::terminal(master).map_err(|error| CallError::Stream("use the terminal", error))?;
        if let Terminal::Sized { rows, columns } = terminal {
            let sized = streams.resize(rows, columns);
            sized.map_err(|errno| CallError::System("set the terminal's size", errno))?;
        }
        Ok(streams)
    };
    match streams.await {
        Ok(streams) => Ok(Launched { pid, exit, streams }),
        Err(error) => {
            // It may have ended by itself.
            let _ = launcher.reaper.signal(pid, libc::SIGKILL);
            Err(error)
        }
    }
}

/// Releases storages; what stays mounted is logged, as there is an error to report already.
pub(super) async fn release(guest: &Guest, mount_points: Vec<GuestPath>) {
    let storages = guest.storages().clone();
    let released = tokio::task::spawn_blocking(move || storages.release(mount_points)).await;
    for error in released.unwrap_or_default() {
        tracing::warn!(error = chain(&error), "undo failed");
    }
}

/// None when there is none yet: then it is the first container's own, which others share.
fn shared_pid_namespace(guest: &Guest) -> Result<Option<PathBuf>, CallError> {
    let sandbox = guest.sandbox();
    let sandbox = sandbox.as_ref().ok_or(CallError::Unsupported("sandbox_pidns without a sandbox"))?;
    let Some((pid, exit)) = &sandbox.pid_namespace else { return Ok(None) };
    if exit.borrow().is_some() {
        return Err(CallError::NoSharedPids);
    }
    Ok(Some(PathBuf::from(format!("/proc/{pid}/ns/pid"))))
}

fn write_bundle(bundle: &Path, spec: &Spec) -> Result<(), CallError> {
    let failed = |error| CallError::File(bundle.into(), error);
    std::fs::create_dir_all(bundle).map_err(failed)?;
    let text = serde_json::to_vec(spec).expect("a specification of UTF-8 texts is JSON");
    std::fs::write(bundle.join("config.json"), text).map_err(failed)
}

async fn undo(id: &ContainerId, cgroup: &Cgroup, bundle: &Path) {
    let mut failed: Vec<CallError> = Vec::new();
    failed.extend(cgroup.kill_all().err().map(Into::into));
    failed.extend(cgroup.emptied(Deadline::after(UNDO_WAIT)).await.err().map(Into::into));
    failed.extend(cgroup.remove().err().map(Into::into));
    failed.extend(super::remove::remove_directories(id, bundle).err());
    for error in failed {
        tracing::warn!(container = %id, error = chain(&error), "undo failed");
    }
}
