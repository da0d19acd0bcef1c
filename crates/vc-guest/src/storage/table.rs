//! The mounted storages of the sandbox, counted by their users.

use super::error::StorageError;
use super::layers::Layer;
use super::made::Made;
use super::mounting::Mounting;
use super::overlay;
use super::request::{Driver, StorageSpec};
use crate::block::{BlockSource, Disks};
use crate::log::chain;
use crate::modules::ModuleLoader;
use crate::mount_options::MountOptions;
use crate::uevent::DeviceEvents;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use vc_agent_protocol::agent;
use vc_types::{Deadline, GuestPath};

/// How long a plugged device may take to appear.
const DEVICE_WAIT: Duration = Duration::from_secs(10);

/// The mounted storages.
#[derive(Clone, Debug)]
pub struct StorageTable(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    modules: Arc<ModuleLoader>,
    events: DeviceEvents,
    mounted: Mutex<HashMap<GuestPath, Arc<Slot>>>,
    /// How many storages were kept so far.
    kept: AtomicU64,
}

/// One mount point. Whoever mounts or unmounts there locks it, so that nobody waits for other mount points.
#[derive(Debug, Default)]
struct Slot {
    mounted: Mutex<Mounted>,
    /// A directory of the host, whose contents are the host's. Asked for without the lock, since a mount can take long.
    is_share: AtomicBool,
}

#[derive(Debug, Default)]
struct Mounted {
    users: usize,
    made: Made,
    /// Whether a request said that it is for the whole sandbox (`Storage.shared`).
    is_for_all: bool,
    /// How many were kept before it, if it stays without users until the sandbox ends.
    kept: Option<u64>,
    /// No longer in the table; whoever still holds it looks there again.
    is_gone: bool,
}

impl StorageTable {
    /// An empty table; file systems come from `modules`, devices are announced by `events`.
    pub fn new(modules: Arc<ModuleLoader>, events: DeviceEvents) -> Self {
        Self(Arc::new(Inner { modules, events, mounted: Mutex::default(), kept: AtomicU64::new(0) }))
    }

    /// Mounts the storages that `owner`, a container or the sandbox, asks for in one request, in their
    /// order, and gives their mount points, to be released in the opposite order. A mount point in use
    /// already gets one more user.
    ///
    /// # Errors
    /// [`StorageError`] of the first storage that fails; those before it are released again.
    pub async fn add(&self, owner: &str, wire: &[agent::Storage]) -> Result<Vec<GuestPath>, StorageError> {
        let specs: Arc<[_]> = parse(wire)?.into();
        self.check_overlays(&specs)?;
        let mut count = 0;
        let result = self.add_all(owner, &specs, &mut count).await;
        let added = specs[..count].iter().map(|spec| spec.mount_point.clone()).collect();
        if let Err(error) = result {
            let table = self.clone();
            for undo in blocking(move || table.release(added)).await {
                tracing::warn!(error = chain(&undo), "undo failed");
            }
            return Err(error);
        }
        Ok(added)
    }

    /// Keeps those of `mount_points` that were asked for as shared, until [`release_kept`](Self::release_kept):
    /// once there is a container that has written to them. Those of a failed creation are not kept.
    pub fn keep(&self, mount_points: &[GuestPath]) {
        for mount_point in mount_points {
            let Some(slot) = self.table().get(mount_point).cloned() else { continue };
            let mut mounted = slot.lock();
            if mounted.is_for_all && mounted.kept.is_none() {
                mounted.kept = Some(self.0.kept.fetch_add(1, Ordering::Relaxed));
            }
        }
    }

    /// Takes one user from each of `mount_points`, the last one first, and unmounts those without
    /// users that are not kept. Goes on after an error and gives all of them.
    pub fn release(&self, mount_points: Vec<GuestPath>) -> Vec<StorageError> {
        let mut errors = Vec::new();
        for mount_point in mount_points.into_iter().rev() {
            let Some(slot) = self.table().get(&mount_point).cloned() else { continue };
            let mut mounted = slot.lock();
            mounted.users = mounted.users.saturating_sub(1);
            if mounted.kept.is_none() {
                errors.extend(self.unmount_unused(&mount_point, &mut mounted));
            }
        }
        errors
    }

    /// Unmounts what was kept for the sandbox, the newest first, when nobody has it any more. Gives all errors.
    pub fn release_kept(&self) -> Vec<StorageError> {
        let slots: Vec<_> =
            self.table().iter().map(|(path, slot)| (path.clone(), Arc::clone(slot))).collect();
        let mut kept: Vec<_> = slots
            .into_iter()
            .filter_map(|(path, slot)| Some((slot.lock().kept.take()?, path, Arc::clone(&slot))))
            .collect();
        kept.sort_by_key(|(number, ..)| std::cmp::Reverse(*number));
        let unmounted = kept.iter().flat_map(|(_, path, slot)| self.unmount_unused(path, &mut slot.lock()));
        unmounted.collect()
    }

    fn unmount_unused(&self, mount_point: &GuestPath, mounted: &mut Mounted) -> Vec<StorageError> {
        if mounted.users > 0 || mounted.is_gone {
            return Vec::new();
        }
        let errors = std::mem::take(&mut mounted.made).undo();
        self.remove(mount_point, mounted);
        errors
    }

    /// Changes the options of memory that is mounted, such as its size.
    ///
    /// # Errors
    /// [`StorageError`] of the first storage that is not memory, is not mounted, or that the kernel refuses.
    pub fn update(&self, wire: &[agent::Storage]) -> Result<(), StorageError> {
        parse(wire)?.iter().try_for_each(|spec| self.update_one(spec))
    }

    fn update_one(&self, spec: &StorageSpec) -> Result<(), StorageError> {
        let is_mounted = self.table().contains_key(&spec.mount_point);
        if !is_mounted || spec.driver != Driver::Memory {
            return Err(StorageError::NotMounted(spec.mount_point.clone()));
        }
        let MountOptions { flags, data, .. } = MountOptions::parse(spec.options.iter().map(String::as_str));
        let (none, flags): (Option<&str>, _) = (None, flags | MsFlags::MS_REMOUNT);
        mount(none, spec.mount_point.as_str(), none, flags, Some(data.as_str())).map_err(|errno| {
            StorageError::Mount {
                fs_type: "tmpfs".to_owned(),
                source_name: "tmpfs".to_owned(),
                mount_point: spec.mount_point.as_str().into(),
                errno,
            }
        })
    }

    /// Mounts what can be mounted; waits, and goes on from there, for what may still come. `count` tells how
    /// many are mounted.
    async fn add_all(
        &self,
        owner: &str,
        specs: &Arc<[StorageSpec]>,
        count: &mut usize,
    ) -> Result<(), StorageError> {
        let mut events = self.0.events.clone();
        let mut waiting = Waiting::default();
        loop {
            // Subscribed before it is tried, so that no event is lost in between.
            events.mark_seen();
            let (table, owner, specs, from) = (self.clone(), owner.to_owned(), Arc::clone(specs), *count);
            let (mounted, result) = blocking(move || table.mount_all(&owner, &specs[from..])).await;
            *count += mounted;
            match result {
                Err(error) if may_come(&error) && waiting.go_on(*count, &mut events).await => {}
                result => return result,
            }
        }
    }

    /// Mounts storages up to the first that fails; tells how many they were.
    fn mount_all(&self, owner: &str, specs: &[StorageSpec]) -> (usize, Result<(), StorageError>) {
        let mut disks = Disks::below(Path::new("/"));
        for (count, spec) in specs.iter().enumerate() {
            if let Err(error) = self.mount(owner, spec, &mut disks) {
                return (count, Err(error));
            }
        }
        (specs.len(), Ok(()))
    }

    fn mount(&self, owner: &str, spec: &StorageSpec, disks: &mut Disks<'_>) -> Result<(), StorageError> {
        loop {
            let slot = Arc::clone(self.table().entry(spec.mount_point.clone()).or_default());
            let mut mounted = slot.lock();
            if mounted.is_gone {
                continue;
            }
            if mounted.users == 0 && mounted.kept.is_none() {
                let mut made = Made::default();
                let devices = self.devices(spec, disks);
                let result = devices.and_then(|devices| {
                    let mounting = Mounting { modules: &self.0.modules, owner, devices: &devices };
                    mounting.mount(spec, &mut made)
                });
                if let Err(error) = result {
                    for undo in made.undo() {
                        tracing::warn!(error = chain(&undo), "undo failed");
                    }
                    self.remove(&spec.mount_point, &mut mounted);
                    return Err(error);
                }
                mounted.made = made;
                slot.is_share.store(matches!(spec.driver, Driver::VirtioFs(_)), Ordering::Relaxed);
            }
            mounted.users += 1;
            mounted.is_for_all |= spec.shared;
            return Ok(());
        }
    }

    /// The nodes of a storage's devices.
    fn devices(&self, spec: &StorageSpec, disks: &mut Disks<'_>) -> Result<Vec<PathBuf>, StorageError> {
        let node = |source: &BlockSource| {
            if !disks.knows(&source.address) {
                self.0.modules.load_if_known(source.address.modules())?;
            }
            let node = disks.node(source);
            node.map_err(|error| StorageError::Block(spec.mount_point.clone(), error))
        };
        spec.layers().into_iter().flat_map(Layer::devices).map(node).collect()
    }

    /// Layers out == layers in: every overlay stands on storages that come before it in its request,
    /// or on directories that the host shares.
    fn check_overlays(&self, specs: &[StorageSpec]) -> Result<(), StorageError> {
        let slots: Vec<_> =
            self.table().iter().map(|(path, slot)| (path.clone(), Arc::clone(slot))).collect();
        let shares: Vec<_> =
            slots.into_iter().filter(|(_, slot)| slot.is_share.load(Ordering::Relaxed)).collect();
        let mut shares: BTreeSet<_> = shares.iter().map(|(path, _)| path).collect();
        let mut before = BTreeSet::new();
        for spec in specs {
            match spec.driver {
                Driver::Overlay { .. } => overlay::check_lowerdirs(&spec.options, &before, &shares)
                    .map_err(|error| StorageError::Lowerdir(spec.mount_point.clone(), error))?,
                Driver::VirtioFs(_) => drop(shares.insert(&spec.mount_point)),
                _ => {}
            }
            before.insert(&spec.mount_point);
        }
        Ok(())
    }

    fn remove(&self, mount_point: &GuestPath, mounted: &mut Mounted) {
        mounted.is_gone = true;
        self.table().remove(mount_point);
    }

    fn table(&self) -> MutexGuard<'_, HashMap<GuestPath, Arc<Slot>>> {
        self.0.mounted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what is missing may be plugged just now.
fn may_come(error: &StorageError) -> bool {
    match error {
        StorageError::Block(..) => true,
        // The kernel knows no share of this tag.
        StorageError::Mount { fs_type, errno: Errno::EINVAL, .. } => fs_type == "virtiofs",
        _ => false,
    }
}

/// Waiting for the device of one storage after the other.
#[derive(Debug, Default)]
struct Waiting(Option<(usize, Deadline)>);

impl Waiting {
    /// Waits for an event because of the storage at `index`. `false` once its time is over and it was looked
    /// for once more after that, in case an event was lost.
    async fn go_on(&mut self, index: usize, events: &mut DeviceEvents) -> bool {
        let deadline = match self.0 {
            Some((before, deadline)) if before == index => deadline,
            _ => Deadline::after(DEVICE_WAIT),
        };
        let last = deadline.is_over();
        self.0 = Some((index, deadline));
        // An event or the end of the time: both are a reason to look.
        let _ = tokio::time::timeout(deadline.remaining(), events.changed()).await;
        !last
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Mounted> {
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(wire: &[agent::Storage]) -> Result<Vec<StorageSpec>, StorageError> {
    StorageSpec::all_from_wire(wire).map_err(|(mount_point, error)| StorageError::Invalid(mount_point, error))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
