//! Containers and their processes.

mod console;
mod copy_up;
mod counters;
mod create;
mod device;
mod exec;
mod processes;
mod remove;
mod signal;
mod start;
mod stats;
mod sysctl;
mod termination_log;
mod update;
mod user_namespace;

use crate::cgroup::Cgroup;
use crate::error::CallError;
use crate::executor::{Joining, Launcher};
use crate::hooks::LateHooks;
use crate::reaper::{Exit, Reaper};
use crate::stdio::Streams;
use nix::unistd::Pid;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;
use vc_types::{ContainerId, GuestPath};

pub(crate) use create::create;
use processes::Processes;
pub(crate) use remove::remove;

/// How long the executor may take: an overlay's first look-ups may have to wait for slow disks.
const EXECUTOR_WAIT: Duration = Duration::from_secs(60);

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) cgroup: Cgroup,
    /// Its first process.
    init: Pid,
    counters: OnceLock<counters::Counters>,
    /// What every further process joins.
    joining: Joining,
    /// `config.json` and the sockets of terminals.
    bundle: PathBuf,
    hooks: LateHooks,
    launcher: Launcher,
    mount_points: Mutex<Vec<GuestPath>>,
    stage: Mutex<Stage>,
    /// Read by each exec while it is being started.
    launching: tokio::sync::RwLock<()>,
    processes: Mutex<Processes>,
    oom_watch: AbortHandle,
}

impl Drop for Container {
    fn drop(&mut self) {
        self.oom_watch.abort();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Created,
    Running,
    Paused,
    Removing,
}

/// One process of a container.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: String,
    pub(crate) pid: Pid,
    pub(crate) exit: Exit,
    pub(crate) streams: Streams,
    is_init: bool,
    waited: AtomicBool,
    reaper: Reaper,
}

impl Container {
    /// The process called `exec`; the container's id, and nothing, mean its first one.
    pub(crate) fn process(&self, exec: &str) -> Result<Arc<Process>, CallError> {
        let id = if exec.is_empty() { self.id.as_str() } else { exec };
        let unknown = || CallError::NoProcess {
            container: self.id.to_string(),
            exec: exec.chars().take(200).collect(),
        };
        self.processes().get(id).ok_or_else(unknown)
    }

    /// Forgets `process` once the host knows its status and has read all it wrote. The first process
    /// stays until the container is removed.
    pub(crate) fn forget_if_done(&self, process: &Process) {
        if !process.is_init && process.waited.load(Ordering::Relaxed) && process.streams.are_drained() {
            self.processes().forget(&process.id);
        }
    }

    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes from one of `from` to `to`, or says that `action` is not for now.
    fn advance(&self, from: &[Stage], to: Stage, action: &'static str) -> Result<Stage, CallError> {
        let mut stage = self.stage();
        if !from.contains(&stage) {
            return Err(CallError::State { container: self.id.to_string(), action });
        }
        Ok(std::mem::replace(&mut *stage, to))
    }
}

impl Process {
    /// Waits for the process's end; any number of callers may.
    ///
    /// # Cancel safety
    /// The status stays for the next caller.
    pub(crate) async fn wait(&self) -> i32 {
        let status = crate::reaper::wait(&mut self.exit.clone()).await;
        self.waited.store(true, Ordering::Relaxed);
        status
    }
}
