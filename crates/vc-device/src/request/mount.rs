//! From a mount to a request: is there a device behind its source?

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use vc_types::{DeviceNumber, HostPath, InvalidDeviceNumber};

use super::{DeviceRequest, DeviceSource, FileId};
use crate::spec::Access;

/// The option that says that a mount's source is a file with a disk image in it (Kata's name).
pub const BLOCK_FILE_OPTION: &str = "io.katacontainers.fs-opt.block_device=file";

/// What stat(2) says about a path, links followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// A block device of this number.
    Block(DeviceNumber),
    /// A character device of this number.
    Character(DeviceNumber),
    /// A regular file.
    Regular(FileId),
    /// A directory.
    Directory,
    /// A socket or a FIFO.
    Other,
}

impl TryFrom<&std::fs::Metadata> for PathKind {
    type Error = InvalidDeviceNumber;

    fn try_from(stat: &std::fs::Metadata) -> Result<Self, InvalidDeviceNumber> {
        let kind = stat.file_type();
        Ok(match () {
            () if kind.is_block_device() => Self::Block(DeviceNumber::from_stat(stat.rdev())?),
            () if kind.is_char_device() => Self::Character(DeviceNumber::from_stat(stat.rdev())?),
            () if kind.is_file() => {
                Self::Regular(FileId { device: DeviceNumber::from_stat(stat.dev())?, inode: stat.ino() })
            }
            () if kind.is_dir() => Self::Directory,
            () => Self::Other,
        })
    }
}

/// The file behind the loop device that a directory is mounted from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PmemBacking {
    /// Which file.
    pub file: FileId,
    /// Where to open it.
    pub path: HostPath,
    /// What [`has_pfn_signature`](crate::has_pfn_signature) says about its start.
    pub has_signature: bool,
    /// The file system that is mounted; `ext4` if that is not known.
    pub fs_type: Option<String>,
}

/// A mount that a container asks for, with what is known about its source. The destination does not
/// count: it is a path in the guest, and says nothing about the host.
#[derive(Clone, Copy, Debug)]
pub struct Mount<'a> {
    /// Its source on the host.
    pub source: &'a HostPath,
    /// Its type, such as `bind`.
    pub kind: &'a str,
    /// Its options.
    pub options: &'a [String],
    /// What the source is.
    pub source_kind: &'a PathKind,
    /// What is behind the source if it is a directory on a loop device.
    pub pmem: Option<&'a PmemBacking>,
}

/// Why a mount cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// The source is said to be a disk image and is none.
    #[error(
        "{source_path} is to be a disk image (option `{BLOCK_FILE_OPTION}`), but it is neither a regular file nor a block device"
    )]
    NoImage {
        /// The source.
        source_path: HostPath,
    },
    /// The device of a direct-assigned volume or of a root file system is none.
    #[error("{device_path} is to be plugged as a disk, but it is neither a block device nor a regular file")]
    NoDisk {
        /// Where it should be.
        device_path: HostPath,
    },
}

/// The request behind a mount; `None` when its source is no device and the mount is to be served in
/// another way.
///
/// A block device is itself, wherever its node is: neither the file system that holds the node nor the
/// disk below a directory is ever meant.
///
/// # Errors
/// [`MountError`] when the options contradict the source.
pub fn request_of_mount(mount: &Mount<'_>, access: Access) -> Result<Option<DeviceRequest>, MountError> {
    let is_block_file = mount.options.iter().any(|option| option == BLOCK_FILE_OPTION);
    if mount.kind != "bind" && !is_block_file {
        return Ok(None);
    }
    let path = mount.source.clone();
    let source = match mount.source_kind {
        PathKind::Block(number) => DeviceSource::Block { number: *number, path },
        PathKind::Regular(file) if is_block_file => DeviceSource::File { file: *file, path },
        _ if is_block_file => return Err(MountError::NoImage { source_path: path }),
        PathKind::Directory => match mount.pmem.filter(|backing| backing.has_signature) {
            Some(backing) => DeviceSource::Pmem {
                file: backing.file,
                path: backing.path.clone(),
                fs_type: backing.fs_type.clone().unwrap_or_else(|| "ext4".to_owned()),
            },
            None => return Ok(None),
        },
        PathKind::Regular(_) | PathKind::Character(_) | PathKind::Other => return Ok(None),
    };
    Ok(Some(DeviceRequest { source, access, node: None }))
}

/// The request for a disk that is named as such: the device of a direct-assigned volume, or a root file
/// system that nobody has mounted. A regular file is an image.
///
/// # Errors
/// [`MountError::NoDisk`] for anything else; it is never served in another way instead.
pub fn request_of_disk(
    path: &HostPath,
    kind: &PathKind,
    access: Access,
) -> Result<DeviceRequest, MountError> {
    let path = path.clone();
    let source = match kind {
        PathKind::Block(number) => DeviceSource::Block { number: *number, path },
        PathKind::Regular(file) => DeviceSource::File { file: *file, path },
        PathKind::Character(_) | PathKind::Directory | PathKind::Other => {
            return Err(MountError::NoDisk { device_path: path });
        }
    };
    Ok(DeviceRequest { source, access, node: None })
}

/// What is known about whether a device may be written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessFacts {
    /// The mount or the root file system is asked for read-only.
    pub read_only_mount: bool,
    /// The device rule of the container's cgroup that counts for this device, if there is one: whether
    /// it has `w`.
    pub cgroup_write: Option<bool>,
    /// The device itself is read-only (`BLKROGET`, or a file that cannot be opened for writing).
    pub read_only_device: bool,
    /// Somebody insists on writing.
    pub must_write: bool,
}

/// Why a device cannot be had as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Read-only and read-write at once.
    #[error("it is to be written to, but the mount is read-only or the container's device rules forbid it")]
    Contradiction,
    /// The device cannot be written to.
    #[error("it is to be written to, but the device is read-only on the host")]
    ReadOnlyDevice,
}

/// Decides once whether a device is read-only: it is if anything says so. What is decided here reaches
/// the hypervisor.
///
/// # Errors
/// [`AccessError`] when somebody insists on writing and something forbids it.
pub const fn decide_access(facts: AccessFacts) -> Result<Access, AccessError> {
    let forbidden = facts.read_only_mount || matches!(facts.cgroup_write, Some(false));
    match (facts.must_write, forbidden, facts.read_only_device) {
        (true, true, _) => Err(AccessError::Contradiction),
        (true, false, true) => Err(AccessError::ReadOnlyDevice),
        (false, false, false) | (true, false, false) => Ok(Access::ReadWrite),
        (false, _, _) => Ok(Access::ReadOnly),
    }
}
