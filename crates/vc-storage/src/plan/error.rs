//! Why there is no plan.

use std::fmt;
use std::path::PathBuf;

use vc_device::{AccessError, GuestLocation, MountError};
use vc_mountinfo::DeviceUse;
use vc_types::{DeviceId, HostPath};

use crate::rootfs::VolumeType;
use crate::volume::{SharedFs, VolumeError};

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A root file system has at least one layer.
    #[error("the root file system has no layers")]
    NoLayers,
    /// The disks were not plugged as planned.
    #[error("{planned} disks were planned, {plugged} were plugged")]
    DiskCount {
        /// Disks in the plan.
        planned: usize,
        /// Disks there are.
        plugged: usize,
    },
    /// A disk is where the agent cannot mount it from.
    #[error("disk {disk} is at {location}, where no layer can be mounted from")]
    Place {
        /// The disk.
        disk: DeviceId,
        /// Where it is.
        location: GuestLocation,
    },
    /// The overlay would not have the layers that the plan has.
    #[error("{planned} layers were planned, {mounted} would be mounted")]
    LayerCount {
        /// Layers in the plan.
        planned: usize,
        /// Layers of the overlay.
        mounted: usize,
    },
    /// The facts are about something else than what is asked for.
    #[error("facts are known about {known} things, {asked} are asked for; gather them again")]
    Facts {
        /// How many are asked for.
        asked: usize,
        /// How many are known.
        known: usize,
    },
    /// A mount cannot be served.
    #[error(transparent)]
    Mount(#[from] VolumeError),
    /// A disk of the host is used there.
    #[error(transparent)]
    Disk(#[from] DiskRefusal),
    /// The root is a disk that is none.
    #[error("the root file system's disk cannot be plugged")]
    RootDisk(#[from] MountError),
    /// The root's disk cannot be had as it is asked for.
    #[error("the root file system's disk cannot be had as it is asked for")]
    RootAccess(#[from] AccessError),
    /// There is nothing to share as the root.
    #[error("the root file system's directory {0} is not there, or is no directory")]
    NoDirectory(HostPath),
    /// It is understood, but cannot be done.
    #[error("the root file system cannot be had: {0}")]
    Unsupported(Unsupported),
    /// A part of it needs a disk, and the machine takes none.
    #[error("{0} has to be plugged, and this machine takes no disks")]
    NoDisks(HostPath),
}

/// What is understood and cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsupported {
    /// A layer whose data is in more images than go on one disk with it.
    #[error("{image} has its data in {blobs} more images, and one disk has room for {most} of them")]
    Blobs {
        /// The layer.
        image: HostPath,
        /// How many the others are.
        blobs: usize,
        /// How many there may be.
        most: usize,
    },
    /// A block device among layers of which one is there twice, or has its data in other images.
    #[error(
        "layer {0} is a block device, which is no partition of a disk of layers; layers of which one is there twice, \
         or has its data in other images, have to be"
    )]
    BlockLayer(HostPath),
    /// Options of the overlay.
    #[error("the overlay is to have the option {0:?}, which is not passed on to the guest")]
    OverlayOption(String),
    /// Directories that the agent makes in another way.
    #[error("{0:?} is to be made in the image, with an owner or a place that the agent cannot be told")]
    Directory(String),
    /// An image of nydus, and no nydusd to serve it.
    #[error("nydusd, which needs root, has to serve it: shared_fs must be virtio-fs-nydus; here it is {0}")]
    Nydus(SharedFs),
    /// The agent cannot serve such a volume.
    #[error("the agent serves no virtual volume of type {0:?}")]
    VirtualVolume(VolumeType),
    /// Several volumes that do not go together.
    #[error("{0} virtual volumes are no root file system: expected is one, or layers only")]
    VirtualVolumes(usize),
    /// Data and hashes with something between them.
    #[error("the hashes of the virtual volume start at byte {offset}, which is not where its data ends")]
    VerityGap {
        /// Where they start.
        offset: u64,
    },
    /// A volume without a file system.
    #[error("the virtual volume {0:?} names no absolute path, or no file system")]
    Incomplete(String),
}

/// Why a disk of the host is never given away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiskRefusal {
    /// The host has it mounted.
    #[error(
        "{disk} is mounted at {mount_point:?} on this host, and two kernels destroy a file system; unmount it first"
    )]
    Mounted {
        /// The disk.
        disk: HostPath,
        /// Where.
        mount_point: PathBuf,
    },
    /// The host has a part of it mounted, or the disk that it is a part of.
    #[error("{disk} shares its sectors with {relative}, which is in use on this host ({how})")]
    Relative {
        /// The disk.
        disk: HostPath,
        /// A partition of it, or the whole disk.
        relative: vc_mountinfo::DeviceNumber,
        /// How that is used.
        how: String,
    },
    /// The host swaps to it.
    #[error("{disk} is swap space of this host; see swapoff(8)")]
    Swap {
        /// The disk.
        disk: HostPath,
    },
    /// Another device is made of it.
    #[error("{disk} is held by {holder}, a device of this host that is made of it")]
    Held {
        /// The disk.
        disk: HostPath,
        /// The other device.
        holder: String,
    },
    /// A loop device is attached to it.
    #[error("{disk} is attached to /dev/loop{number} on this host; see losetup(8)")]
    Loop {
        /// The disk or image.
        disk: HostPath,
        /// The N of `/dev/loopN`.
        number: u32,
    },
    /// Somebody has it for himself.
    #[error(
        "{disk} is claimed on this host: by a mount in another mount namespace, a file system of several disks, or a program"
    )]
    Claimed {
        /// The disk.
        disk: HostPath,
    },
}

/// A policy that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the annotation {name} is {value:?}: expected is true or false")]
pub struct PolicyError {
    /// The annotation.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

impl DiskRefusal {
    /// The refusal of a disk with this number that has this use.
    pub(super) fn of(disk: &HostPath, own: Option<vc_mountinfo::DeviceNumber>, found: &DeviceUse) -> Self {
        let disk = disk.clone();
        let relative = |device: &vc_mountinfo::DeviceNumber| own.is_some_and(|own| own != *device);
        match found {
            DeviceUse::Mounted { device, .. }
            | DeviceUse::Swap { device }
            | DeviceUse::Holder { device, .. }
            | DeviceUse::Loop { device, .. }
                if relative(device) =>
            {
                Self::Relative { disk, relative: *device, how: How(found).to_string() }
            }
            DeviceUse::Mounted { mount_point, .. } => {
                Self::Mounted { disk, mount_point: mount_point.clone() }
            }
            DeviceUse::Swap { .. } => Self::Swap { disk },
            DeviceUse::Holder { holder, .. } => Self::Held { disk, holder: holder.clone() },
            DeviceUse::Loop { number, .. } => Self::Loop { disk, number: *number },
            _ => Self::Claimed { disk },
        }
    }
}

struct How<'a>(&'a DeviceUse);

impl fmt::Display for How<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DeviceUse::Mounted { mount_point, .. } => write!(f, "mounted at {mount_point:?}"),
            DeviceUse::Swap { .. } => f.write_str("swap space"),
            DeviceUse::Holder { holder, .. } => write!(f, "held by {holder}"),
            DeviceUse::Loop { number, .. } => write!(f, "attached to /dev/loop{number}"),
            _ => f.write_str("claimed"),
        }
    }
}
