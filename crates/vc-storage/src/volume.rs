//! How each mount of a container reaches the guest. Pure: what is on the host is told by [`MountFacts`].

mod direct;
mod kubernetes;

use std::path::Path;

use serde::Serialize;
use vc_device::{
    AccessError, AccessFacts, DeviceRequest, MountError, PathKind, PmemBacking, decide_access,
    request_of_disk, request_of_mount,
};
use vc_types::{HostPath, InvalidPath};

use crate::mount::Mount;

pub use direct::{DirectVolume, FsGroupOf, InvalidDirectVolume};

/// A mount of a container, as its OCI specification has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerMount {
    /// Where the container has it. It says nothing about the host.
    pub destination: String,
    /// What it is. A source on the host has its links resolved: a link to `/proc` is `/proc`.
    pub mount: Mount,
}

/// What is known about the source of a mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountFacts {
    /// What the source is, links followed; `None` when there is nothing on the host.
    pub kind: Option<PathKind>,
    /// The type of the file system that holds it, such as `tmpfs`.
    pub fs_type: Option<String>,
    /// The volume that a CSI driver assigned to this path, and what its device is.
    pub direct: Option<(DirectVolume, PathKind)>,
    /// Whether the device, or that of the volume, is read-only.
    pub read_only_device: bool,
    /// What is behind the source if it is a directory on a loop device.
    pub pmem: Option<PmemBacking>,
    /// How many files are below it.
    pub files: usize,
}

/// What the sandbox has, and what its owner wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountPolicy {
    /// Host and guest share a file system; without one, files are copied.
    pub shared_fs: bool,
    /// Directories that Kubernetes replaces at once are watched for it.
    pub watch: bool,
    /// An `emptyDir` on a disk is made in the guest instead of being shared.
    pub local_empty_dir: bool,
}

/// How a mount reaches the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "way")]
pub enum MountWay {
    /// The guest mounts it by itself, by the same words.
    InGuest,
    /// The guest's own `/dev/shm` is used.
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
    },
    /// A tmpfs in the guest's memory, which all containers of the sandbox share.
    Ephemeral {
        /// Its name.
        name: String,
    },
    /// Huge pages of the guest.
    HugePages {
        /// Its name.
        name: String,
    },
    /// A directory that the guest makes, which all containers of the sandbox share.
    Local {
        /// Its name.
        name: String,
    },
    /// The file or directory is shared with the guest.
    Share {
        /// What is shared.
        source: HostPath,
        /// Whether the guest may only read.
        read_only: bool,
        /// Whether mounts below it come along.
        recursive: bool,
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
    /// Sockets, FIFOs and devices cannot be shared.
    #[error("{0} is neither a file nor a directory, and cannot be shared with a machine")]
    Special(HostPath),
}

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
    let read_only = has(mount, "ro");
    let is_bind = mount.kind == "bind" || has(mount, "bind") || has(mount, "rbind");
    let is_image = has(mount, vc_device::BLOCK_FILE_OPTION);
    if !is_bind && !is_image {
        return Ok((MountWay::InGuest, "it is no bind mount: the guest's kernel makes it"));
    }
    let source = HostPath::new(&mount.source)?;
    if is_below(&source, &["/proc", "/sys"]) {
        return Ok((
            MountWay::InGuest,
            "its source is the kernel's own view, and the container's kernel is the guest's",
        ));
    }
    let access = || {
        let facts = AccessFacts {
            read_only_mount: read_only,
            read_only_device: facts.read_only_device,
            ..AccessFacts::default()
        };
        decide_access(facts)
    };
    if let Some((volume, device)) = &facts.direct {
        let read_only_mount = read_only || volume.options.iter().any(|option| option == "ro");
        let access = decide_access(AccessFacts {
            read_only_mount,
            read_only_device: facts.read_only_device,
            ..AccessFacts::default()
        })?;
        let device = request_of_disk(&volume.device, device, access)?;
        let (fs_type, options) = (volume.fs_type.clone(), volume.options.clone());
        let way = MountWay::Plug { device, fs_type, options, fs_group: volume.fs_group };
        return Ok((way, "a CSI driver assigned this volume to the sandbox"));
    }
    if Path::new(&wanted.destination) == Path::new("/dev/shm") && !is_image {
        return Ok((MountWay::SharedMemory, "processes share memory within the guest only"));
    }
    let Some(kind) = &facts.kind else {
        if is_below(&source, &["/dev"]) {
            return Ok((MountWay::GuestDevice, "the host has no such device, so it is the guest's"));
        }
        return Err(VolumeCause::NoSource(source));
    };
    let asked = vc_device::Mount {
        source: &source,
        kind: "bind",
        options: &mount.options,
        source_kind: kind,
        pmem: facts.pmem.as_ref(),
    };
    if let Some(device) = request_of_mount(&asked, access()?)? {
        let (fs_type, options) =
            if is_bind { ("bind", Vec::new()) } else { (mount.kind.as_str(), options_of(mount)) };
        let way = MountWay::Plug { device, fs_type: fs_type.to_owned(), options, fs_group: None };
        return Ok((way, "its source is a block device or a disk image"));
    }
    if is_below(&source, &["/dev"]) && !matches!(kind, PathKind::Regular(_)) {
        return Ok((
            MountWay::GuestDevice,
            "its source is below /dev, and the container's devices are the guest's",
        ));
    }
    if let Some(name) = kubernetes::empty_dir(&source) {
        match facts.fs_type.as_deref() {
            Some("tmpfs") => {
                return Ok((MountWay::Ephemeral { name }, "an emptyDir in memory is in the guest's memory"));
            }
            Some("hugetlbfs") => return Ok((MountWay::HugePages { name }, "huge pages are the guest's")),
            _ if policy.local_empty_dir => {
                return Ok((
                    MountWay::Local { name },
                    "an emptyDir is made in the guest, as the policy has it",
                ));
            }
            _ => {}
        }
    }
    if !matches!(kind, PathKind::Regular(_) | PathKind::Directory) {
        return Err(VolumeCause::Special(source));
    }
    let watched = policy.watch && kubernetes::is_watchable(&source, facts.files);
    if !policy.shared_fs {
        return Ok((MountWay::Copy { source, watched }, "host and guest share no file system"));
    }
    let recursive = has(mount, "rbind");
    let reason = if watched {
        "Kubernetes replaces its files, and the guest is to notice"
    } else {
        "it is a file or directory of the host"
    };
    Ok((MountWay::Share { source, read_only, recursive, watched }, reason))
}

fn has(mount: &Mount, wanted: &str) -> bool {
    mount.options.iter().any(|option| option == wanted)
}

/// The options that the guest's kernel is told.
fn options_of(mount: &Mount) -> Vec<String> {
    mount.options.iter().filter(|option| *option != vc_device::BLOCK_FILE_OPTION).cloned().collect()
}

/// Whether it is one of the directories or below it, by whole names.
fn is_below(path: &HostPath, directories: &[&str]) -> bool {
    directories.iter().any(|directory| path.as_path().starts_with(Path::new(directory)))
}

#[cfg(test)]
mod tests;
