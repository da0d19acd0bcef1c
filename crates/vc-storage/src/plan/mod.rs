//! The plan: how a container's root file system and each of its mounts reach the guest. Pure.

mod disk;
mod error;
mod mounts;
mod names;
mod numbered;
mod rootfs;
mod storage;
mod tree;
mod verity;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use vc_agent::{Feature, StorageDriver};
use vc_device::{DeviceIdentity, DeviceSource, FileId};
use vc_types::{ContainerId, GuestPath, HostPath};

use crate::facts::HostFacts;
use crate::rootfs::{MakeFilesystem, Rootfs};
use crate::volume::{ContainerMount, MountPolicy, SharedFs};

pub use disk::{DiskPlan, DiskUse};
pub use error::{DiskRefusal, PlanError, PolicyError, Unsupported};
pub use names::{WATCHABLE, volume as guest_volume};
pub use storage::{DiskPlug, PlannedSource, PlannedStorage};

use disk::Disks;

/// The tag by which the guest mounts the shared directory. Kata's agent has the same.
pub const SHARE_TAG: &str = "kataShared";

/// The option that names a partition with data of a layer, beside the one with its metadata. Kata's agent has none
/// like it.
pub(crate) const BLOB_PARTITION: &str = "X-vc.blob-partition";

/// What a container needs: its root, and its mounts.
#[derive(Clone, Debug)]
pub struct StorageRequest {
    /// The container.
    pub container: ContainerId,
    /// Its root file system.
    pub rootfs: Rootfs,
    /// Its mounts, in the order of its OCI specification.
    pub mounts: Vec<ContainerMount>,
    /// How many bytes of huge pages it may have, by the size of a page in bytes.
    pub huge_pages: BTreeMap<u64, u64>,
}

/// What is decided for one part of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// What was decided, in one or two words.
    pub way: &'static str,
    /// Why, in one sentence.
    pub reason: String,
}

/// Which part of a container something is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Its root file system.
    Root,
    /// The mount of this number, from 0.
    Mount(usize),
}

/// An image that has to be made first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImagePlan {
    /// Where.
    pub path: HostPath,
    /// With which file system, and how large.
    pub filesystem: MakeFilesystem,
}

/// A file or directory that is bound into the directory that host and guest share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SharePlan {
    /// What for.
    pub part: Part,
    /// What is shared.
    pub source: HostPath,
    /// Its name in the shared directory.
    pub name: String,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// Whether mounts below it come along.
    pub recursive: bool,
    /// Whether mounts that the host makes later come along.
    pub follow: bool,
    /// Whether a place for the guest's own copy is needed beside it.
    pub watched: bool,
}

/// A file or directory that is copied into the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CopyPlan {
    /// What for.
    pub part: Part,
    /// What is copied.
    pub source: HostPath,
    /// Where to.
    pub target: GuestPath,
    /// Whether it is copied again when the host replaces it.
    pub watched: bool,
}

/// What becomes of a mount of the OCI specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MountEdit {
    /// Where the container has it.
    pub destination: String,
    /// What was decided.
    #[serde(flatten)]
    pub decision: Decision,
    /// What the guest is told instead.
    pub edit: Edit,
}

/// A change of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edit {
    /// It stays as it is.
    Keep,
    /// It is replaced.
    Replace {
        /// Its type.
        kind: String,
        /// Its source in the guest.
        source: String,
        /// Its options.
        options: Vec<String>,
    },
    /// It goes: a storage is mounted there.
    Remove,
}

/// A program of the host that has to serve something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServicePlan {
    /// nydusd mounts a RAFS image beside the shared directory.
    Nydusd {
        /// The bootstrap of the image.
        source: HostPath,
        /// Its configuration.
        config: String,
        /// Where it is mounted, seen from the guest.
        target: GuestPath,
    },
}

/// Everything that is to be done for the storage of one container, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoragePlan {
    /// The container.
    pub container: ContainerId,
    /// The number behind its names in the shared directory; 0 for none.
    #[serde(skip)]
    pub number: u32,
    /// Where its root file system will be in the guest.
    pub rootfs: GuestPath,
    /// What was decided for the root.
    pub root: Decision,
    /// How many layers the root has; as many are mounted.
    pub layers: usize,
    /// Images to make, before anything is plugged.
    pub images: Vec<ImagePlan>,
    /// Disks to plug.
    pub disks: Vec<DiskPlan>,
    /// Programs to ask; there is one at most, for the root.
    pub services: Vec<ServicePlan>,
    /// What is bound into the shared directory.
    pub shares: Vec<SharePlan>,
    /// What is copied.
    pub copies: Vec<CopyPlan>,
    /// What the agent mounts, in this order.
    pub storages: Vec<PlannedStorage>,
    /// The volumes of CSI drivers that it uses, by the paths that those have them by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub direct_volumes: Vec<HostPath>,
    /// What becomes of each mount of the OCI specification, in its order.
    pub mounts: Vec<MountEdit>,
}

/// Decides how a container's root file system and each of its mounts reach the guest.
///
/// # Errors
/// [`PlanError`] for the first part that cannot be had as it is asked for. It is never served in another way
/// instead.
pub fn plan(
    request: &StorageRequest,
    facts: &HostFacts,
    policy: MountPolicy,
) -> Result<StoragePlan, PlanError> {
    if request.mounts.len() != facts.mounts.len() {
        return Err(PlanError::Facts { asked: request.mounts.len(), known: facts.mounts.len() });
    }
    let mut planner = Planner::new(request, policy);
    let root = planner.root(&request.rootfs, &facts.root)?;
    let mut mounts = Vec::new();
    for (index, (mount, facts)) in request.mounts.iter().zip(&facts.mounts).enumerate() {
        mounts.push(planner.mount(index, mount, facts)?);
    }
    planner.mount_share();
    let disks = planner.disks.finish(policy)?;
    let plan = StoragePlan {
        container: request.container.clone(),
        number: 0,
        rootfs: root.path,
        root: root.decision,
        layers: root.layers,
        images: planner.images,
        disks,
        services: planner.services,
        shares: planner.shares,
        copies: planner.copies,
        storages: storage::in_order(planner.storages),
        direct_volumes: planner.direct_volumes,
        mounts,
    };
    plan.check_layers()?;
    Ok(plan)
}

/// What is found out about the root.
struct Root {
    path: GuestPath,
    decision: Decision,
    layers: usize,
}

/// What has been decided so far.
struct Planner<'a> {
    request: &'a StorageRequest,
    policy: MountPolicy,
    images: Vec<ImagePlan>,
    disks: Disks,
    /// The storages that exist already, by the device that they mount.
    volumes: BTreeMap<DeviceIdentity, GuestPath>,
    services: Vec<ServicePlan>,
    shares: Vec<SharePlan>,
    copies: Vec<CopyPlan>,
    storages: Vec<(storage::Order, PlannedStorage)>,
    direct_volumes: Vec<HostPath>,
}

impl<'a> Planner<'a> {
    fn new(request: &'a StorageRequest, policy: MountPolicy) -> Self {
        Self {
            request,
            policy,
            images: Vec::new(),
            disks: Disks::default(),
            volumes: BTreeMap::new(),
            services: Vec::new(),
            shares: Vec::new(),
            copies: Vec::new(),
            storages: Vec::new(),
            direct_volumes: Vec::new(),
        }
    }
}

impl Planner<'_> {
    /// The guest mounts the shared directory before what is in it; all containers have one mount of it.
    fn mount_share(&mut self) {
        if !self.shares.is_empty() {
            let at = names::served(self.policy.shared_fs);
            let share = PlannedStorage::in_guest(StorageDriver::VirtioFs, SHARE_TAG, "virtiofs", at);
            self.storages.push((storage::Order::Share, share));
        }
    }
}

impl StoragePlan {
    /// How host and guest have to share a file system; `None` when nothing is shared.
    pub fn shared_fs(&self) -> SharedFs {
        let is_share = |storage: &&PlannedStorage| {
            matches!(storage.source, PlannedSource::Guest { driver: StorageDriver::VirtioFs, .. })
        };
        let Some(share) = self.storages.iter().find(is_share) else { return SharedFs::None };
        let by_nydusd = share.mount_point == names::served(SharedFs::Nydus);
        if by_nydusd { SharedFs::Nydus } else { SharedFs::VirtioFs }
    }

    /// Tells which file an image to make has become.
    pub fn made(&mut self, image: &HostPath, is: FileId) {
        let planned = self.disks.iter_mut().flat_map(|disk| &mut disk.images);
        for source in planned.filter(|source| disk::path_of(source) == Some(image)) {
            *source = DeviceSource::File { file: is, path: image.clone() };
        }
    }

    /// Where the guest has what the container has at `destination`; `None` if no mount is there, or one that needs
    /// nothing of the host.
    pub fn volume(&self, destination: &str) -> Option<GuestPath> {
        let mount = self.mounts.iter().rfind(|mount| mount.destination == destination)?;
        match &mount.edit {
            Edit::Replace { kind, source, .. } if kind == "bind" => GuestPath::new(source).ok(),
            _ => None,
        }
    }

    /// What the agent has to be able to do beyond the agent protocol. Its GetGuestDetails tells.
    pub fn features(&self) -> BTreeSet<Feature> {
        let mut options = self.storages.iter().flat_map(|storage| &storage.options);
        options
            .any(|option| option.starts_with(BLOB_PARTITION))
            .then_some(Feature::BlobPartitions)
            .into_iter()
            .collect()
    }

    /// Layers out are layers in: each is mounted once, and each image of it is on one disk.
    fn check_layers(&self) -> Result<(), PlanError> {
        let of_layers = self.disks.iter().filter(|disk| disk.holds_layers());
        let on_disks: usize = of_layers.map(|disk| disk.images.len()).sum();
        let images: Vec<usize> = self.storages.iter().map(|storage| storage.layer_images).collect();
        let mounted = images.iter().filter(|images| **images > 0).count();
        let needed = images.iter().sum();
        let counts = [(self.layers, mounted), (needed, on_disks)];
        match counts.into_iter().find(|(planned, mounted)| planned != mounted) {
            Some((planned, mounted)) => Err(PlanError::LayerCount { planned, mounted }),
            None => Ok(()),
        }
    }
}
