//! What the agent is to mount: complete but for where the disks are.

use serde::{Serialize, Serializer};
use vc_agent::{FsGroup, FsGroupPolicy, Storage, StorageDriver};
use vc_device::GuestLocation;
use vc_types::{DeviceId, GuestPath};

use super::{PlanError, StoragePlan};
use crate::volume::FsGroupOf;

/// Something that the agent is to mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedStorage {
    /// Where it comes from.
    #[serde(flatten)]
    pub source: PlannedSource,
    /// Options of the driver.
    pub driver_options: Vec<String>,
    /// Its file system; `bind` for a device as it is.
    pub fs_type: String,
    /// Mount options.
    pub options: Vec<String>,
    /// Where it is mounted in the guest.
    pub mount_point: GuestPath,
    /// Who its files are given to.
    pub fs_group: Option<FsGroupOf>,
    /// Whether it stays until the sandbox ends.
    pub shared: bool,
    /// How many images the layer of the root has that it is; 0 if it is none.
    #[serde(skip)]
    pub(super) layer_images: usize,
}

/// Where a storage comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PlannedSource {
    /// A disk of the plan.
    Disk {
        /// Its number, from 0.
        disk: usize,
    },
    /// What needs no disk.
    Guest {
        /// The agent's driver.
        #[serde(serialize_with = "driver_name")]
        driver: StorageDriver,
        /// The source, in the way of the driver.
        source: String,
    },
}

/// A disk of the plan, plugged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPlug {
    /// Its name.
    pub id: DeviceId,
    /// Where the guest finds it.
    pub location: GuestLocation,
}

fn driver_name<S: Serializer>(driver: &StorageDriver, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(driver.name())
}

/// In which order storages are mounted: what others stand on comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    Share,
    LayerVolume,
    Root,
    Watchable,
    Ephemeral,
    HugePages,
    Local,
    Volume,
}

/// Sorts by kind; those of one kind keep their order.
pub(super) fn in_order(mut storages: Vec<(Order, PlannedStorage)>) -> Vec<PlannedStorage> {
    storages.sort_by_key(|(order, _)| *order);
    storages.into_iter().map(|(_, storage)| storage).collect()
}

impl PlannedStorage {
    pub(super) fn of_disk(disk: usize, fs_type: impl Into<String>, mount_point: GuestPath) -> Self {
        Self::new(PlannedSource::Disk { disk }, fs_type.into(), mount_point)
    }

    pub(super) fn in_guest(
        driver: StorageDriver,
        source: impl Into<String>,
        fs_type: &str,
        mount_point: GuestPath,
    ) -> Self {
        Self::new(PlannedSource::Guest { driver, source: source.into() }, fs_type.to_owned(), mount_point)
    }

    fn new(source: PlannedSource, fs_type: String, mount_point: GuestPath) -> Self {
        Self {
            source,
            driver_options: Vec::new(),
            fs_type,
            options: Vec::new(),
            mount_point,
            fs_group: None,
            shared: false,
            layer_images: 0,
        }
    }

    fn resolve(&self, plugged: &[DiskPlug]) -> Result<Storage, PlanError> {
        let (driver, source) = match &self.source {
            PlannedSource::Guest { driver, source } => (*driver, source.clone()),
            PlannedSource::Disk { disk } => {
                let missing = PlanError::DiskCount { planned: disk + 1, plugged: plugged.len() };
                let plug = plugged.get(*disk).ok_or(missing)?;
                let driver = match &plug.location {
                    GuestLocation::Pci(_) => StorageDriver::Block,
                    GuestLocation::Scsi { .. } => StorageDriver::Scsi,
                    GuestLocation::Memory(_) => StorageDriver::Nvdimm,
                    GuestLocation::Ap => {
                        let (disk, location) = (plug.id.clone(), plug.location.clone());
                        return Err(PlanError::Place { disk, location });
                    }
                };
                (driver, plug.location.to_string())
            }
        };
        let policy = |group: FsGroupOf| {
            if group.on_root_mismatch { FsGroupPolicy::OnRootMismatch } else { FsGroupPolicy::Always }
        };
        Ok(Storage {
            driver_options: self.driver_options.clone(),
            options: self.options.clone(),
            fs_group: self.fs_group.map(|group| FsGroup { id: group.id, policy: policy(group) }),
            shared: self.shared,
            ..Storage::new(driver, source, self.fs_type.clone(), self.mount_point.clone())
        })
    }
}

impl StoragePlan {
    /// What the agent is to mount, in order, once the disks are `plugged` in the order of the plan.
    ///
    /// # Errors
    /// [`PlanError::DiskCount`] unless there is exactly one plugged disk for each of the plan, and
    /// [`PlanError::Place`] for a disk that no driver of the agent finds.
    pub fn resolve(&self, plugged: &[DiskPlug]) -> Result<Vec<Storage>, PlanError> {
        if plugged.len() != self.disks.len() {
            return Err(PlanError::DiskCount { planned: self.disks.len(), plugged: plugged.len() });
        }
        self.storages.iter().map(|storage| storage.resolve(plugged)).collect()
    }
}
