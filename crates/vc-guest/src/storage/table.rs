//! The mounted storages of the sandbox, counted by their users.

use super::directories::Directories;
use super::overlay::{self, LowerdirError};
use super::request::{Driver, InvalidStorage, StorageSpec};
use crate::block::{BlockError, wait_for_block};
use crate::modules::ModuleLoader;
use crate::mount::{Mount, unmount};
use crate::mount_options::MountOptions;
use crate::uevent::BlockEvents;
use nix::errno::Errno;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vc_agent_protocol::agent;
use vc_types::{Deadline, GuestPath};

/// How long a plugged device may take to appear.
const DEVICE_WAIT: Duration = Duration::from_secs(10);

/// Why a request's storages are not mounted.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The request cannot be served.
    #[error("cannot use the storage for {0:?}")]
    Invalid(String, #[source] InvalidStorage),
    /// A device did not come.
    #[error("cannot mount the storage at {0}")]
    Block(GuestPath, #[source] BlockError),
    /// An overlay does not stand on its request's layers.
    #[error("cannot mount the overlay at {0}")]
    Lowerdir(GuestPath, #[source] LowerdirError),
    /// A directory or link cannot be made.
    #[error("cannot make {0:?}")]
    Directory(PathBuf, #[source] std::io::Error),
    /// The kernel refuses the mount.
    #[error("cannot mount {fs_type} from {source_name:?} at {mount_point}")]
    Mount {
        /// The file system.
        fs_type: String,
        /// The device or directory.
        source_name: String,
        /// Where.
        mount_point: GuestPath,
        /// Why.
        #[source]
        errno: Errno,
    },
    /// A storage cannot be unmounted.
    #[error("cannot unmount the storage at {0}")]
    Unmount(GuestPath, #[source] Errno),
}

/// The mounted storages.
#[derive(Clone, Debug)]
pub struct StorageTable(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    modules: Arc<ModuleLoader>,
    events: BlockEvents,
    mounted: Mutex<HashMap<GuestPath, Mounted>>,
}

#[derive(Debug)]
struct Mounted {
    users: usize,
    made: Directories,
}

impl StorageTable {
    /// An empty table; file systems come from `modules`, devices are announced by `events`.
    pub fn new(modules: Arc<ModuleLoader>, events: BlockEvents) -> Self {
        Self(Arc::new(Inner { modules, events, mounted: Mutex::default() }))
    }

    /// Mounts the storages of one request in order and gives their mount points, to be released in
    /// the opposite order. A mount point in use already gets one more user.
    ///
    /// # Errors
    /// [`StorageError`] of the first storage that fails; those before it are released again.
    pub async fn add(&self, wire: &[agent::Storage]) -> Result<Vec<GuestPath>, StorageError> {
        let specs = wire.iter().map(|wire| {
            StorageSpec::from_wire(wire)
                .map_err(|error| StorageError::Invalid(wire.mount_point.clone(), error))
        });
        let specs = specs.collect::<Result<Vec<_>, _>>()?;
        check_overlays(&specs)?;
        let mut added = Vec::new();
        for spec in &specs {
            match self.add_one(spec).await {
                Ok(()) => added.push(spec.mount_point.clone()),
                Err(error) => {
                    for undo in self.release(added) {
                        tracing::warn!(error = crate::log::chain(&undo), "undo failed");
                    }
                    return Err(error);
                }
            }
        }
        Ok(added)
    }

    /// Takes one user from each of `mount_points`, the last one first, and unmounts those without
    /// users. Goes on after an error and gives all of them.
    pub fn release(&self, mount_points: Vec<GuestPath>) -> Vec<StorageError> {
        let mut errors = Vec::new();
        let mut table = self.lock();
        for mount_point in mount_points.into_iter().rev() {
            let Some(mounted) = table.get_mut(&mount_point) else { continue };
            mounted.users -= 1;
            if mounted.users > 0 {
                continue;
            }
            match unmount(Path::new(mount_point.as_str())) {
                Ok(()) => mounted.made.remove(),
                Err(errno) => errors.push(StorageError::Unmount(mount_point.clone(), errno)),
            }
            table.remove(&mount_point);
        }
        errors
    }

    async fn add_one(&self, spec: &StorageSpec) -> Result<(), StorageError> {
        if self.add_user(&spec.mount_point) {
            return Ok(());
        }
        let source = match &spec.driver {
            Driver::Block(path) => {
                let deadline = Deadline::after(DEVICE_WAIT);
                let device = wait_for_block(Path::new("/"), path, self.0.events.clone(), deadline);
                let device = device.await.map_err(|e| StorageError::Block(spec.mount_point.clone(), e))?;
                device.display().to_string()
            }
            Driver::Bind(path) => path.to_string(),
            Driver::Overlay => "overlay".to_owned(),
            Driver::Ephemeral => "tmpfs".to_owned(),
        };
        let (table, spec) = (self.clone(), spec.clone());
        match tokio::task::spawn_blocking(move || table.mount(&spec, &source)).await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn add_user(&self, mount_point: &GuestPath) -> bool {
        let mut table = self.lock();
        let mounted = table.get_mut(mount_point);
        mounted.map(|mounted| mounted.users += 1).is_some()
    }

    /// Holds the table while it mounts, so that two requests never mount one mount point twice.
    fn mount(&self, spec: &StorageSpec, source: &str) -> Result<(), StorageError> {
        let mut table = self.lock();
        if let Some(mounted) = table.get_mut(&spec.mount_point) {
            mounted.users += 1;
            return Ok(());
        }
        let mut made = Directories::default();
        let result = self.create_and_mount(spec, source, &mut made);
        match result {
            Ok(()) => drop(table.insert(spec.mount_point.clone(), Mounted { users: 1, made })),
            Err(_) => made.remove(),
        }
        result
    }

    fn create_and_mount(
        &self,
        spec: &StorageSpec,
        source: &str,
        made: &mut Directories,
    ) -> Result<(), StorageError> {
        for directory in &spec.directories {
            made.make_tree(Path::new(directory.as_str()))?;
        }
        let target = Path::new(spec.mount_point.as_str());
        if matches!(spec.driver, Driver::Bind(_)) && Path::new(source).is_file() {
            made.make_file(target)?;
        } else {
            made.make(target)?;
        }
        let overlay_names;
        let options = match spec.driver {
            Driver::Overlay if !overlay::fits(&spec.options) => {
                overlay_names = ShortNames::new(&spec.options)?;
                MountOptions::parse(overlay_names.options.iter().map(String::as_str))
            }
            Driver::Bind(_) => {
                MountOptions::parse(["bind"].into_iter().chain(spec.options.iter().map(String::as_str)))
            }
            Driver::Block(_) | Driver::Overlay | Driver::Ephemeral => {
                MountOptions::parse(spec.options.iter().map(String::as_str))
            }
        };
        let fs_type = if spec.driver == Driver::Overlay { "overlay" } else { &spec.fs_type };
        let mount = Mount { source, target, fs_type, options };
        mount.make(&self.0.modules).map_err(|errno| StorageError::Mount {
            fs_type: fs_type.to_owned(),
            source_name: source.to_owned(),
            mount_point: spec.mount_point.clone(),
            errno,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<GuestPath, Mounted>> {
        self.0.mounted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// D1: layers out == layers in. Every overlay stands on storages that come before it.
fn check_overlays(specs: &[StorageSpec]) -> Result<(), StorageError> {
    let mut before = BTreeSet::new();
    for spec in specs {
        if spec.driver == Driver::Overlay {
            overlay::check_lowerdirs(&spec.options, &before)
                .map_err(|error| StorageError::Lowerdir(spec.mount_point.clone(), error))?;
        }
        before.insert(&spec.mount_point);
    }
    Ok(())
}

/// The links of an overlay mount, gone when dropped.
struct ShortNames {
    directory: PathBuf,
    options: Vec<String>,
}

impl ShortNames {
    fn new(options: &[String]) -> Result<Self, StorageError> {
        // The table is locked, so one name is enough.
        let directory = PathBuf::from("/run/overlay");
        let failed = |error| StorageError::Directory(directory.clone(), error);
        std::fs::create_dir(&directory).map_err(failed)?;
        let mut names = Self { directory: directory.clone(), options: Vec::new() };
        names.options = overlay::with_short_names(options, &directory).map_err(failed)?;
        Ok(names)
    }
}

impl Drop for ShortNames {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(directory = ?self.directory, %error, "cannot remove");
        }
    }
}
