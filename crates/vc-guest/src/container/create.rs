//! CreateContainer: storages, specification, executor; and the undo of each.

use super::console::Console;
use super::{Container, EXECUTOR_WAIT, Process, Stage};
use crate::cgroup::Cgroup;
use crate::error::CallError;
use crate::executor::{Launcher, Task};
use crate::guest::{Guest, parse_id};
use crate::log::chain;
use crate::spec::container_spec;
use crate::stdio::{Streams, no_streams};
use oci_spec::runtime::Spec;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
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
    let reservation = guest.reserve(&id)?;
    guest.modules_loaded().await?;
    let shared_pid = request.sandbox_pidns.then(|| shared_pid_namespace(guest)).transpose()?;
    let spec = container_spec(&request.oci, &id, shared_pid.as_deref())?;
    let mount_points = guest.storages().add(id.as_str(), &request.storages).await?;
    match create_mounted(guest, &id, &spec, &mount_points).await {
        Ok(container) => {
            let events = container.cgroup.file("memory.events");
            if let Err(error) = guest.oom().watch(id, &events) {
                tracing::warn!(?events, %error, "nobody will be told when it runs out of memory");
            }
            reservation.fill(container.into());
            Ok(())
        }
        Err(error) => {
            release(guest, mount_points).await;
            Err(error)
        }
    }
}

async fn create_mounted(
    guest: &Guest,
    id: &ContainerId,
    spec: &Spec,
    mount_points: &[GuestPath],
) -> Result<Container, CallError> {
    let bundle = Path::new(BUNDLES).join(id.as_str());
    write_bundle(&bundle, spec)?;
    let linux = spec.linux().as_ref();
    let cgroup_path = linux.and_then(|linux| linux.cgroups_path().clone()).unwrap_or_default();
    let cgroup = Cgroup::new(guest.cgroup_root(), &cgroup_path);
    let terminal = spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
    let launcher = guest.launcher();
    let task = |console| Task::Create { id: id.to_string(), bundle: bundle.clone(), console };
    match launch(&launcher, task, terminal, &bundle).await {
        Ok(launched) => Ok(Container {
            id: id.clone(),
            cgroup,
            processes: Mutex::new(HashMap::from([(
                id.to_string(),
                launched.into_process(id.to_string(), true, &launcher).into(),
            )])),
            bundle,
            launcher,
            mount_points: Mutex::new(mount_points.to_vec()),
            stage: Mutex::new(Stage::Created),
            launching: tokio::sync::RwLock::default(),
        }),
        Err(error) => {
            undo(id, &cgroup, &bundle).await;
            Err(error)
        }
    }
}

/// A process just made, with the host's ends of its streams.
pub(super) struct Launched {
    pid: nix::unistd::Pid,
    exit: crate::reaper::Exit,
    streams: Streams,
}

impl Launched {
    pub(super) fn into_process(self, id: String, is_init: bool, launcher: &Launcher) -> Process {
        Process {
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

/// Has the executor make a process, with a terminal or with pipes.
pub(super) async fn launch(
    launcher: &Launcher,
    task: impl FnOnce(Option<PathBuf>) -> Task,
    terminal: bool,
    directory: &Path,
) -> Result<Launched, CallError> {
    let deadline = Deadline::after(EXECUTOR_WAIT);
    if !terminal {
        let (streams, theirs) = Streams::pipes().map_err(|error| CallError::Stream("make pipes", error))?;
        let (pid, exit) = launcher.launch(&task(None), theirs.map(Stdio::from), deadline).await?;
        return Ok(Launched { pid, exit, streams });
    }
    let console = Console::listen(directory)?;
    let (pid, exit) = launcher.launch(&task(Some(console.path())), no_streams(), deadline).await?;
    let streams = console.terminal(deadline).await?;
    let streams = Streams::terminal(streams).map_err(|error| CallError::Stream("use the terminal", error))?;
    Ok(Launched { pid, exit, streams })
}

/// Releases storages; what stays mounted is logged, as there is an error to report already.
pub(super) async fn release(guest: &Guest, mount_points: Vec<GuestPath>) {
    let storages = guest.storages().clone();
    let released = tokio::task::spawn_blocking(move || storages.release(mount_points)).await;
    for error in released.unwrap_or_default() {
        tracing::warn!(error = chain(&error), "undo failed");
    }
}

fn shared_pid_namespace(guest: &Guest) -> Result<PathBuf, CallError> {
    let pid = guest.sandbox().as_ref().and_then(|sandbox| Some(sandbox.pid_namespace.as_ref()?.0));
    let pid = pid.ok_or(CallError::Unsupported("sandbox_pidns without a CreateSandbox that asked for it"))?;
    Ok(PathBuf::from(format!("/proc/{pid}/ns/pid")))
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
