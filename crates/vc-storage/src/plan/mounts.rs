//! The mounts of a container: from how each reaches the guest to disks, shares, copies, storages and edits.

use vc_agent::StorageDriver;
use vc_device::{Access, DeviceRequest};
use vc_types::{GuestPath, HostPath};

use super::rootfs::block_options;
use super::storage::{Order, PlannedStorage};
use super::{CopyPlan, Decision, Edit, MountEdit, Part, PlanError, Planner, SharePlan, names};
use crate::facts::DiskFacts;
use crate::mount::Mount;
use crate::volume::{
    ContainerMount, FsGroupOf, MountFacts, MountPlan, MountWay, VolumeCause, VolumeError, plan_mount,
};

/// The guest's shared memory of a container that is given none of the sandbox: 64 MiB, as engines have it.
const SHM_OPTIONS: [&str; 5] = ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"];

impl Planner<'_> {
    pub(super) fn mount(
        &mut self,
        index: usize,
        wanted: &ContainerMount,
        facts: &MountFacts,
    ) -> Result<MountEdit, PlanError> {
        let MountPlan { destination, way, reason } = plan_mount(wanted, facts, self.policy)?;
        let failed = |cause| VolumeError { destination: destination.clone(), cause };
        if facts.direct.is_some() && matches!(way, MountWay::Plug { .. }) {
            let volume = HostPath::new(&wanted.mount.source);
            self.direct_volumes.push(volume.map_err(|error| failed(VolumeCause::Path(error)))?);
        }
        let (name, edit) = match way {
            MountWay::InGuest => ("in the guest", Edit::Keep),
            MountWay::GuestDevice => ("the guest's own", Edit::Keep),
            MountWay::SharedMemory if self.policy.shared_memory => {
                let at = GuestPath::new("/dev/shm").map_err(|error| failed(VolumeCause::Path(error)))?;
                ("the sandbox's", bound(&at, &wanted.mount, Access::ReadWrite))
            }
            MountWay::SharedMemory => ("in the guest", shared_memory()),
            MountWay::Plug { device, fs_type, options, fs_group, is_layer } => {
                let volume = Volume { device, fs_type, options, fs_group };
                if is_layer {
                    let at = GuestPath::new(&wanted.destination);
                    let at = at.map_err(|error| failed(VolumeCause::Path(error)))?;
                    let disk = self.disks.alone(Part::Mount(index), volume.device.clone(), &facts.disk)?;
                    self.storages.push((Order::LayerVolume, volume.storage(disk, at)));
                    ("layer", Edit::Remove)
                } else {
                    let at = self.volume(index, &volume, &facts.disk)?;
                    ("plugged", bound(&at, &wanted.mount, volume.device.access))
                }
            }
            MountWay::Ephemeral { name, gid } => {
                let at = names::ephemeral(&name);
                let driver = StorageDriver::Ephemeral;
                let storage = PlannedStorage::in_guest(driver, "tmpfs", "tmpfs", at.clone());
                self.of_sandbox(Order::Ephemeral, PlannedStorage { options: group(gid), ..storage });
                ("in the guest's memory", bound(&at, &wanted.mount, Access::ReadWrite))
            }
            MountWay::HugePages { name, page_size } => {
                let size = self.request.huge_pages.get(&page_size).copied();
                let size = size.filter(|size| *size >= page_size);
                let size = size.ok_or_else(|| failed(VolumeCause::NoHugePages { page_size }))?;
                let at = names::ephemeral(&name);
                let driver = StorageDriver::Ephemeral;
                let mut storage = PlannedStorage::in_guest(driver, "nodev", "hugetlbfs", at.clone());
                storage.options = vec![format!("pagesize={page_size},size={size}")];
                self.of_sandbox(Order::HugePages, storage);
                ("huge pages", bound(&at, &wanted.mount, Access::ReadWrite))
            }
            MountWay::Local { name, gid } => {
                let at = names::local(&name);
                let storage = PlannedStorage::in_guest(StorageDriver::Local, "local", "local", at.clone());
                let options = ["mode=0777".to_owned()].into_iter().chain(group(gid)).collect();
                self.of_sandbox(Order::Local, PlannedStorage { options, ..storage });
                ("in the guest", bound(&at, &wanted.mount, Access::ReadWrite))
            }
            MountWay::Share { source, read_only, recursive, follow, watched } => {
                let share = SharePlan {
                    part: Part::Mount(index),
                    source,
                    name: names::share(&self.request.container, index, &wanted.destination),
                    read_only,
                    recursive,
                    follow,
                    watched,
                };
                ("shared", bound(&self.share(share), &wanted.mount, Access::ReadWrite))
            }
            MountWay::Copy { source, watched } => {
                let at = self.copy(index, source, &wanted.destination, watched);
                ("copied", bound(&at, &wanted.mount, Access::ReadWrite))
            }
        };
        let decision = Decision { way: name, reason: reason.to_owned() };
        Ok(MountEdit { destination, decision, edit })
    }

    /// A volume; where it is mounted in the guest. The same device is plugged and mounted once.
    fn volume(&mut self, index: usize, volume: &Volume, facts: &DiskFacts) -> Result<GuestPath, PlanError> {
        let identity = volume.device.source.identity();
        let disk = self.disks.alone(Part::Mount(index), volume.device.clone(), facts)?;
        let at = names::volume(&identity);
        if self.volumes.insert(identity, at.clone()).is_none() {
            self.storages.push((Order::Volume, volume.storage(disk, at.clone())));
        } else if volume.device.access == Access::ReadWrite {
            // It is there for reading; now it is written to as well.
            let same = self.storages.iter_mut().filter(|(_, storage)| storage.mount_point == at);
            same.for_each(|(_, storage)| storage.options.retain(|option| option != "ro"));
        }
        Ok(at)
    }

    /// A storage that other containers of the sandbox may use too. Within one container it is one.
    fn of_sandbox(&mut self, order: Order, storage: PlannedStorage) {
        let is_there = |(_, other): &(Order, PlannedStorage)| other.mount_point == storage.mount_point;
        if !self.storages.iter().any(is_there) {
            self.storages.push((order, PlannedStorage { shared: true, ..storage }));
        }
    }

    fn share(&mut self, share: SharePlan) -> GuestPath {
        let mut at = names::shared(&share.name);
        if share.watched {
            let copy = names::watchable(&share.name);
            let driver = StorageDriver::WatchableBind;
            let mut storage = PlannedStorage::in_guest(driver, at.as_str(), "bind", copy.clone());
            storage.options = if share.read_only { vec!["ro".to_owned()] } else { Vec::new() };
            self.storages.push((Order::Watchable, storage));
            at = copy;
        }
        self.shares.push(share);
        at
    }

    fn copy(&mut self, index: usize, source: HostPath, destination: &str, watched: bool) -> GuestPath {
        let target = names::shared(&names::share(&self.request.container, index, destination));
        let (part, to) = (Part::Mount(index), target.clone());
        self.copies.push(CopyPlan { part, source, target: to, watched });
        target
    }
}

/// A device that is mounted in the guest.
struct Volume {
    device: DeviceRequest,
    fs_type: String,
    options: Vec<String>,
    fs_group: Option<FsGroupOf>,
}

impl Volume {
    fn storage(&self, disk: usize, at: GuestPath) -> PlannedStorage {
        let mut storage = PlannedStorage::of_disk(disk, self.fs_type.clone(), at);
        let read_only = self.device.access == Access::ReadOnly;
        storage.options = match self.fs_type.as_str() {
            // The device itself.
            "bind" => vec!["bind".to_owned()],
            fs_type => block_options(fs_type, read_only, &self.options),
        };
        storage.fs_group = self.fs_group;
        storage
    }
}

fn shared_memory() -> Edit {
    let options = SHM_OPTIONS.map(str::to_owned).into();
    Edit::Replace { kind: "tmpfs".to_owned(), source: "shm".to_owned(), options }
}

fn group(gid: u32) -> Vec<String> {
    if gid == 0 { Vec::new() } else { vec![format!("fsgid={gid}")] }
}

/// The mount as a bind of what is in the guest. Options that are not a bind's were for who mounted it.
fn bound(source: &GuestPath, mount: &Mount, access: Access) -> Edit {
    let is_kept = |option: &&String| OF_A_BIND.contains(&option.as_str());
    let mut options: Vec<String> = mount.options.iter().filter(is_kept).cloned().collect();
    if !options.iter().any(|option| option == "bind" || option == "rbind") {
        options.insert(0, "rbind".to_owned());
    }
    if access == Access::ReadOnly && !options.iter().any(|option| option == "ro") {
        options.retain(|option| option != "rw");
        options.push("ro".to_owned());
    }
    Edit::Replace { kind: "bind".to_owned(), source: source.to_string(), options }
}

/// Options that a bind mount may have (OCI runtime spec, "Linux mount options"), those of recursive mounts and
/// of propagation included.
const OF_A_BIND: [&str; 34] = [
    "bind",
    "rbind",
    "ro",
    "rro",
    "rw",
    "rrw",
    "nosuid",
    "rnosuid",
    "suid",
    "rsuid",
    "nodev",
    "rnodev",
    "dev",
    "rdev",
    "noexec",
    "rnoexec",
    "exec",
    "rexec",
    "noatime",
    "rnoatime",
    "relatime",
    "rrelatime",
    "strictatime",
    "nodiratime",
    "nosymfollow",
    "symfollow",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
];
