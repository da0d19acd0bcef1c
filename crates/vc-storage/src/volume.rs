//! How each mount of a container reaches the guest. Pure: what is on the host is told by [`MountFacts`].

mod direct;
pub(crate) mod kubernetes;
mod shared_fs;
mod store;

use std::path::Path;

use serde::Serialize;
use vc_device::{
    Access, AccessError, AccessFacts, DeviceRequest, DeviceSource, MountError, PathKind, PmemBacking,
    decide_access, request_of_disk, request_of_mount,
};
use vc_types::{HostPath, InvalidPath};

use crate::facts::DiskFacts;
use crate::mount::Mount;
use crate::plan::PolicyError;

pub use direct::{DirectVolume, FsGroupOf, InvalidDirectVolume};
pub use shared_fs::{InvalidSharedFs, SharedFs};
pub use store::DirectVolumes;

/// A mount of a container, as its OCI specification has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerMount {
    /// Where the container has it. It says nothing about the host.
    pub destination: String,
    /// What it is.
    pub mount: Mount,
}

/// What is known about the source of a mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountFacts {
    /// What the source is, links followed; `None` when there is nothing on the host.
    pub kind: Option<PathKind>,
    /// The source without links; `None` when there is nothing.
    pub resolved: Option<HostPath>,
    /// The type of the file system that is mounted at the source, such as `tmpfs`; `None` for one within another.
    pub fs_type: Option<String>,
    /// The volume that a CSI driver assigned to this path, and what its device is.
    pub direct: Option<(DirectVolume, PathKind)>,
    /// What is known about the device, or that of the volume.
    pub disk: DiskFacts,
    /// What is behind the source if it is a directory on a loop device.
    pub pmem: Option<PmemBacking>,
    /// How many files are below it; counted only where it matters, and no further.
    pub files: usize,
    /// The group that it belongs to.
    pub gid: u32,
    /// The size of the huge pages that it holds, in bytes.
    pub huge_page: Option<u64>,
}

/// What the sandbox has, and what its owner wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountPolicy {
    /// How host and guest share a file system; without one, files are copied.
    pub shared_fs: SharedFs,
    /// Disks can be plugged.
    pub disks: bool,
    /// Directories that Kubernetes replaces at once are watched for it.
    pub watch: bool,
    /// An `emptyDir` on a disk is made in the guest instead of being shared.
    pub local_empty_dir: bool,
    /// The container has the guest's `/dev/shm`, as others of its sandbox do, instead of one of its own.
    pub shared_memory: bool,
}

/// The annotation by which a pod has its `emptyDir` on a disk of the host (Kata's name).
const NO_LOCAL_EMPTY_DIR: &str = "io.katacontainers.config.runtime.disable_guest_empty_dir";

impl MountPolicy {
    /// What a machine can that has disks, and what is good for most.
    pub const fn new(shared_fs: SharedFs) -> Self {
        Self { shared_fs, disks: true, watch: true, local_empty_dir: true, shared_memory: false }
    }

    /// The policy with what a container's annotations ask for. Whoever does not trust them leaves this out.
    ///
    /// # Errors
    /// [`PolicyError`] for a value that is not known.
    pub fn with_annotations<'a>(
        self,
        annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, PolicyError> {
        let mut policy = self;
        for (_, value) in annotations.into_iter().filter(|(name, _)| *name == NO_LOCAL_EMPTY_DIR) {
            let invalid = |_| PolicyError { name: NO_LOCAL_EMPTY_DIR, value: value.to_owned() };
            policy.local_empty_dir = !value.parse::<bool>().map_err(invalid)?;
        }
        Ok(policy)
    }
}

/// How a mount reaches the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "way")]
pub enum MountWay {
    /// The guest mounts it by itself, by the same words.
    InGuest,
    /// It is the guest's memory: the container's own, or what the sandbox shares.
    SharedMemory,
    /// The guest's own node or directory below `/dev` is used.
    GuestDevice,
    /// A device is plugged.
    Plug {
        /// The device.
        device: DeviceRequest,
        /// The file system that is mounted from it; `bind` when the container gets the device.
        fs_type: String,
        /// Mount options.
        options: Vec<String>,
        /// Who its files are given to.
        fs_group: Option<FsGroupOf>,
        /// Whether it is a layer, which the guest mounts before all else, at the destination itself.
        is_layer: bool,
    },
    /// A tmpfs in the guest's memory, which all containers of the sandbox share.
    Ephemeral {
        /// Its name.
        name: String,
        /// The group that it belongs to.
        gid: u32,
    },
    /// Huge pages of the guest.
    HugePages {
        /// Its name.
        name: String,
        /// The size of a page in bytes.
        page_size: u64,
    },
    /// A directory that the guest makes, which all containers of the sandbox share.
    Local {
        /// Its name.
        name: String,
        /// The group that it belongs to.
        gid: u32,
    },
    /// The file or directory is shared with the guest.
    Share {
        /// What is shared.
        source: HostPath,
        /// Whether the guest may only read.
        read_only: bool,
        /// Whether mounts below it come along.
        recursive: bool,
        /// Whether mounts that the host makes below it later come along.
        follow: bool,
        /// Whether the guest watches it for changes.
        watched: bool,
    },
    /// The file or directory is copied to the guest.
    Copy {
        /// What is copied.
        source: HostPath,
        /// Whether the host watches it, and copies it again.
        watched: bool,
    },
}

/// How a mount reaches the guest, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MountPlan {
    /// Where the container has it.
    pub destination: String,
    /// How it gets there.
    #[serde(flatten)]
    pub way: MountWay,
    /// Why, in one sentence.
    pub reason: &'static str,
}

/// Why a mount cannot be served. It is never served in another way instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot serve the mount at {destination:?}")]
pub struct VolumeError {
    /// Where the container would have it.
    pub destination: String,
    /// Why.
    #[source]
    pub cause: VolumeCause,
}

/// What is wrong with a mount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeCause {
    /// There is nothing to bind.
    #[error("there is no {0} on the host")]
    NoSource(HostPath),
    /// The path of the source cannot be used.
    #[error("its source cannot be used")]
    Path(#[from] InvalidPath),
    /// The source is not the device that it should be.
    #[error("its source is not what it should be")]
    Device(#[from] MountError),
    /// It cannot be had as it is asked for.
    #[error("its device cannot be had as it is asked for")]
    Access(#[from] AccessError),
    /// The guest's kernel is not asked for such a file system.
    #[error("the guest cannot make a mount of the type {0:?}; it makes {names}", names = MADE_IN_GUEST.join(", "))]
    Kind(String),
    /// A layer is no device.
    #[error("it is to be a layer, but its source is no block device")]
    NoLayer,
    /// The container may have no huge pages of this size.
    #[error("huge pages of {page_size} bytes are mounted, but no hugepageLimits of the container allows one")]
    NoHugePages {
        /// The size of a page in bytes.
        page_size: u64,
    },
    /// Sockets, FIFOs and devices cannot be shared.
    #[error("{0} is neither a file nor a directory, and cannot be shared with a machine")]
    Special(HostPath),
}

/// File systems that the guest makes by itself.
const MADE_IN_GUEST: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];

/// The option by which a mount is a layer for the root file system (Kata's name).
const LAYER_OPTION: &str = "io.katacontainers.fs-opt.is-layer";

/// Decides how a mount reaches the guest.
///
/// # Errors
/// [`VolumeError`] when it cannot, or when what is known about it contradicts itself.
pub fn plan_mount(
    wanted: &ContainerMount,
    facts: &MountFacts,
    policy: MountPolicy,
) -> Result<MountPlan, VolumeError> {
    let destination = wanted.destination.clone();
    match decide(wanted, facts, policy) {
        Ok((way, reason)) => Ok(MountPlan { destination, way, reason }),
        Err(cause) => Err(VolumeError { destination, cause }),
    }
}

type Decision = (MountWay, &'static str);

fn decide(wanted: &ContainerMount, facts: &MountFacts, policy: MountPolicy) -> Result<Decision, VolumeCause> {
    let mount = &wanted.mount;
    let is_image = has(mount, vc_device::BLOCK_FILE_OPTION) || has(mount, LAYER_OPTION);
    if !is_bind(mount) && !is_image {
        return match MADE_IN_GUEST.contains(&mount.kind.as_str()) {
            true => Ok((MountWay::InGuest, "it is no bind mount: the guest's kernel makes it")),
            false => Err(VolumeCause::Kind(mount.kind.clone())),
        };
    }
    let given = HostPath::new(&mount.source)?;
    let source = facts.resolved.as_ref().unwrap_or(&given);
    if is_below(source, &["/proc", "/sys"]) {
        return Ok((
            MountWay::InGuest,
            "its source is the kernel's own view, and the container's kernel is the guest's",
        ));
    }
    if let Some((volume, device)) = &facts.direct {
        return direct_volume(mount, facts, volume, device);
    }
    if Path::new(&wanted.destination) == Path::new("/dev/shm") && !is_image {
        return Ok((MountWay::SharedMemory, "processes share memory within the guest only"));
    }
    let Some(kind) = &facts.kind else {
        if is_below(source, &["/dev"]) {
            return Ok((MountWay::GuestDevice, "the host has no such device, so it is the guest's"));
        }
        return Err(VolumeCause::NoSource(given));
    };
    if let Some(plugged) = disk(mount, source, kind, facts)? {
        return Ok(plugged);
    }
    if is_below(source, &["/dev"]) && !matches!(kind, PathKind::Regular(_)) {
        return Ok((
            MountWay::GuestDevice,
            "its source is below /dev, and the container's devices are the guest's",
        ));
    }
    match empty_dir(&given, facts, policy) {
        Some(decision) => Ok(decision),
        None => files(mount, &given, source, facts, policy),
    }
}

fn direct_volume(
    mount: &Mount,
    facts: &MountFacts,
    volume: &DirectVolume,
    device: &PathKind,
) -> Result<Decision, VolumeCause> {
    let read_only = has(mount, "ro") || volume.options.iter().any(|option| option == "ro");
    let device = request_of_disk(&volume.device, device, access(read_only, facts)?)?;
    let way = MountWay::Plug {
        device,
        fs_type: volume.fs_type.clone(),
        options: volume.options.clone(),
        fs_group: volume.fs_group,
        is_layer: false,
    };
    Ok((way, "a CSI driver assigned this volume to the sandbox"))
}

/// A block device or a disk image; `None` for anything else.
fn disk(
    mount: &Mount,
    source: &HostPath,
    kind: &PathKind,
    facts: &MountFacts,
) -> Result<Option<Decision>, VolumeCause> {
    let is_layer = has(mount, LAYER_OPTION);
    let is_image = has(mount, vc_device::BLOCK_FILE_OPTION);
    if is_layer && !matches!(kind, PathKind::Block(_)) && !is_image {
        return Err(VolumeCause::NoLayer);
    }
    let asked = vc_device::Mount {
        source,
        kind: "bind",
        options: &mount.options,
        source_kind: kind,
        pmem: facts.pmem.as_ref(),
    };
    let read_only = has(mount, "ro") || is_layer;
    let Some(device) = request_of_mount(&asked, access(read_only, facts)?)? else { return Ok(None) };
    let (fs_type, options) = match &device.source {
        DeviceSource::Pmem { fs_type, .. } => (fs_type.clone(), vec!["dax".to_owned()]),
        _ if is_bind(mount) => ("bind".to_owned(), Vec::new()),
        _ => (mount.kind.clone(), options_of(mount)),
    };
    let reason = match (&device.source, is_layer) {
        (_, true) => "it is a layer for the root, which the guest mounts first",
        (DeviceSource::Pmem { .. }, _) => {
            "an image laid out for DAX is behind it, which the guest gets as memory"
        }
        _ => "its source is a block device or a disk image",
    };
    Ok(Some((MountWay::Plug { device, fs_type, options, fs_group: None, is_layer }, reason)))
}

/// An `emptyDir`, which the kubelet's path tells; `None` for anything else.
fn empty_dir(source: &HostPath, facts: &MountFacts, policy: MountPolicy) -> Option<Decision> {
    let name = kubernetes::empty_dir(source)?;
    let gid = facts.gid;
    match (facts.fs_type.as_deref(), facts.huge_page) {
        (Some("tmpfs"), _) => {
            Some((MountWay::Ephemeral { name, gid }, "an emptyDir in memory is in the guest's memory"))
        }
        (Some("hugetlbfs"), Some(page_size)) => {
            Some((MountWay::HugePages { name, page_size }, "huge pages are the guest's"))
        }
        _ if policy.local_empty_dir => {
            Some((MountWay::Local { name, gid }, "an emptyDir is made in the guest, as the policy has it"))
        }
        _ => None,
    }
}

fn files(
    mount: &Mount,
    given: &HostPath,
    source: &HostPath,
    facts: &MountFacts,
    policy: MountPolicy,
) -> Result<Decision, VolumeCause> {
    if !matches!(facts.kind, Some(PathKind::Regular(_) | PathKind::Directory)) {
        return Err(VolumeCause::Special(given.clone()));
    }
    let watched = policy.watch && kubernetes::is_watchable(given, facts.files);
    let source = source.clone();
    if policy.shared_fs == SharedFs::None {
        return Ok((MountWay::Copy { source, watched }, "host and guest share no file system"));
    }
    let of = |names: &[&str]| names.iter().any(|name| has(mount, name));
    let follow = of(&["slave", "rslave", "shared", "rshared"]);
    let reason = match () {
        () if watched => "Kubernetes replaces its files, and the guest is to notice",
        () if of(&["shared", "rshared"]) => {
            "it is a file or directory of the host; mounts that the guest makes there stay in the guest"
        }
        () => "it is a file or directory of the host",
    };
    let read_only = of(&["ro", "rro"]);
    Ok((MountWay::Share { source, read_only, recursive: has(mount, "rbind"), follow, watched }, reason))
}

fn access(read_only_mount: bool, facts: &MountFacts) -> Result<Access, AccessError> {
    let read_only_device = facts.disk.read_only;
    decide_access(AccessFacts { read_only_mount, read_only_device, ..AccessFacts::default() })
}

/// Whether something of the host is bound.
pub(crate) fn is_bind(mount: &Mount) -> bool {
    mount.kind == "bind" || has(mount, "bind") || has(mount, "rbind")
}

fn has(mount: &Mount, wanted: &str) -> bool {
    mount.options.iter().any(|option| option == wanted)
}

/// The options that the guest's kernel is told.
fn options_of(mount: &Mount) -> Vec<String> {
    let for_us = |option: &&String| ![vc_device::BLOCK_FILE_OPTION, LAYER_OPTION].contains(&option.as_str());
    mount.options.iter().filter(for_us).cloned().collect()
}

/// Whether it is one of the directories or below it, by whole names.
fn is_below(path: &HostPath, directories: &[&str]) -> bool {
    directories.iter().any(|directory| path.as_path().starts_with(Path::new(directory)))
}

#[cfg(test)]
mod tests;
