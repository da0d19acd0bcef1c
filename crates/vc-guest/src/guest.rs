//! The state of the agent: one sandbox and its containers.

use crate::cgroup;
use crate::container::Container;
use crate::error::CallError;
use crate::executor::Launcher;
use crate::modules::ModuleLoader;
use crate::oom::OomKills;
use crate::reaper::{Exit, Reaper};
use crate::storage::StorageTable;
use crate::uevent::DeviceEvents;
use nix::unistd::Pid;
use oci_spec::runtime::Hooks;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use vc_types::{ContainerId, GuestPath};

/// How long the modules of the boot list may take.
const MODULES_WAIT: Duration = Duration::from_secs(30);

/// The agent's state, shared by all calls.
#[derive(Clone, Debug)]
pub struct Guest(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    launcher: Launcher,
    oom_kills: OomKills,
    modules: Arc<ModuleLoader>,
    modules_ready: watch::Receiver<bool>,
    storages: StorageTable,
    events: DeviceEvents,
    cgroup_root: PathBuf,
    containers: Mutex<HashMap<ContainerId, Option<Arc<Container>>>>,
    sandbox: Mutex<Option<Sandbox>>,
    power_off: Notify,
}

/// What CreateSandbox made.
#[derive(Debug, Default)]
pub(crate) struct Sandbox {
    pub(crate) mount_points: Vec<GuestPath>,
    /// The init of the shared pid namespace: one that does nothing else, or the first container's.
    pub(crate) pid_namespace: Option<(Pid, Exit)>,
    /// Those of the guest image, which every container gets.
    pub(crate) hooks: Hooks,
}

impl Guest {
    /// An agent without containers. `modules_ready` becomes true once the boot list is loaded.
    pub fn new(
        reaper: Reaper,
        modules: Arc<ModuleLoader>,
        modules_ready: watch::Receiver<bool>,
        events: DeviceEvents,
    ) -> Self {
        Self(Arc::new(Inner {
            launcher: Launcher::new(reaper),
            oom_kills: OomKills::default(),
            storages: StorageTable::new(Arc::clone(&modules), events.clone()),
            events,
            modules,
            modules_ready,
            cgroup_root: PathBuf::from(cgroup::ROOT),
            containers: Mutex::default(),
            sandbox: Mutex::default(),
            power_off: Notify::new(),
        }))
    }

    /// Returns once a host has asked for the end of the machine.
    ///
    /// # Cancel safety
    /// A request that comes while nobody waits is kept.
    pub async fn wait_for_power_off(&self) {
        self.0.power_off.notified().await;
    }

    pub(crate) fn request_power_off(&self) {
        self.0.power_off.notify_one();
    }

    pub(crate) fn reaper(&self) -> &Reaper {
        &self.0.launcher.reaper
    }

    pub(crate) fn launcher(&self) -> &Launcher {
        &self.0.launcher
    }

    /// Starts what the first container would otherwise wait for.
    pub async fn warm_up(&self) {
        self.0.launcher.warm_up().await;
    }

    pub(crate) fn oom_kills(&self) -> &OomKills {
        &self.0.oom_kills
    }

    pub(crate) fn modules(&self) -> &Arc<ModuleLoader> {
        &self.0.modules
    }

    pub(crate) fn storages(&self) -> &StorageTable {
        &self.0.storages
    }

    pub(crate) fn events(&self) -> DeviceEvents {
        self.0.events.clone()
    }

    pub(crate) fn cgroup_root(&self) -> &std::path::Path {
        &self.0.cgroup_root
    }

    pub(crate) fn sandbox(&self) -> MutexGuard<'_, Option<Sandbox>> {
        self.0.sandbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the modules of the boot list are loaded.
    pub(crate) async fn modules_loaded(&self) -> Result<(), CallError> {
        let mut ready = self.0.modules_ready.clone();
        match tokio::time::timeout(MODULES_WAIT, ready.wait_for(|ready| *ready)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(CallError::Late("loading kernel modules")),
        }
    }

    /// The container called `id`, once it is created.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, CallError> {
        let unknown = || CallError::NoContainer(id.to_owned());
        let id = parse_id(id)?;
        self.containers().get(&id).cloned().flatten().ok_or_else(unknown)
    }

    /// The containers that there are.
    pub(crate) fn all_containers(&self) -> Vec<Arc<Container>> {
        self.containers().values().flatten().cloned().collect()
    }

    /// Keeps `id` for a container that is being created.
    pub(crate) fn reserve(&self, id: &ContainerId) -> Result<Reservation, CallError> {
        let mut containers = self.containers();
        if containers.contains_key(id) {
            return Err(CallError::ContainerExists(id.to_string()));
        }
        containers.insert(id.clone(), None);
        Ok(Reservation { guest: self.clone(), id: Some(id.clone()) })
    }

    pub(crate) fn forget(&self, id: &ContainerId) {
        self.containers().remove(id);
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<ContainerId, Option<Arc<Container>>>> {
        self.0.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks an id that the host sent.
pub(crate) fn parse_id(text: &str) -> Result<ContainerId, CallError> {
    text.parse().map_err(|error| CallError::Id(text.chars().take(200).collect(), error))
}

/// An id that is given back when dropped, unless a container took it.
#[derive(Debug)]
pub(crate) struct Reservation {
    guest: Guest,
    id: Option<ContainerId>,
}

impl Reservation {
    pub(crate) fn fill(mut self, container: Arc<Container>) {
        if let Some(id) = self.id.take() {
            self.guest.containers().insert(id, Some(container));
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.guest.forget(&id);
        }
    }
}
