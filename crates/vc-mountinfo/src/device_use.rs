//! Whether a block device is in use on this host.
//!
//! A disk that is handed to a guest while the host has it mounted is destroyed by both. So before that, all
//! that the kernel knows of its use is asked for; no answer is an answer only if none was refused.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::bytes::{lines, path_buf};
use crate::escape::unescape;
use crate::mountinfo::ReadError;
use crate::process::OWN_TABLE;
use crate::sys::ioctl::{LoopStatus, loop_status};
use crate::sys::open_path;
use crate::{DeviceNumber, Fields, Mounts};

/// One use of a block device, or of a partition of it, or of the disk it is a partition of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceUse {
    /// It is mounted in the caller's mount namespace.
    Mounted {
        /// The device or partition.
        device: DeviceNumber,
        /// Where; empty when out of the caller's reach.
        mount_point: PathBuf,
    },
    /// It is swap space.
    Swap {
        /// The device or partition.
        device: DeviceNumber,
    },
    /// Another device is made of it, such as one of device-mapper or RAID.
    Holder {
        /// The device or partition.
        device: DeviceNumber,
        /// The other device's name in sysfs, such as `dm-0`.
        holder: String,
    },
    /// A loop device is attached to it.
    Loop {
        /// The device or partition.
        device: DeviceNumber,
        /// The N of `/dev/loopN`.
        number: u32,
    },
    /// Something else has it for itself alone: a mount in another mount namespace, one of the devices of a
    /// btrfs, a program.
    Claimed,
}

/// Why it cannot be told whether a device is in use. Take it for in use.
#[derive(Debug, thiserror::Error)]
pub enum DeviceUseError {
    /// It is not a block device.
    #[error("{path:?} is not a block device")]
    NotBlockDevice {
        /// The path asked for.
        path: PathBuf,
    },
    /// Something could not be read.
    #[error("cannot tell whether {path:?} is in use: cannot read {object:?}")]
    Read {
        /// The path asked for.
        path: PathBuf,
        /// What could not be read.
        object: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It could not be opened for oneself alone, for another reason than that something has it.
    #[error("cannot tell whether {path:?} is in use: cannot open it; that needs root")]
    Open {
        /// The path asked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// All uses of the block device at `path` that this host knows; none if it is free.
///
/// If no use has a name, the device is opened exclusively for a moment (`O_EXCL`, open(2)), which fails if
/// anything claims it or a partition of it, also out of sight. A program that merely has the device open
/// claims nothing and is not found.
///
/// # Errors
/// [`DeviceUseError`] when any of the questions could not be asked.
pub fn device_uses(path: impl AsRef<Path>) -> Result<Vec<DeviceUse>, DeviceUseError> {
    let path = path.as_ref();
    let failed =
        |object: &Path, source| DeviceUseError::Read { path: path.into(), object: object.into(), source };
    // One handle for all questions: the name may come to mean another device meanwhile.
    let node = open_path(None, path, true).map(File::from).map_err(|source| failed(path, source))?;
    let device = node.metadata().map(|node| block_device(&node)).map_err(|source| failed(path, source))?;
    let device = device.ok_or_else(|| DeviceUseError::NotBlockDevice { path: path.into() })?;
    let family = family(device).map_err(|(object, source)| failed(&object, source))?;
    let sources: [fn(&[DeviceNumber]) -> Found; 4] = [mounts, swaps, holders, loops];
    let mut uses = Vec::new();
    for source in sources {
        uses.extend(source(&family).map_err(|(object, source)| failed(&object, source))?);
    }
    let claimed = || is_claimed(&node).map_err(|source| DeviceUseError::Open { path: path.into(), source });
    if uses.is_empty() && claimed()? {
        uses.push(DeviceUse::Claimed);
    }
    Ok(uses)
}

/// The loop devices that are attached to a file, by the N of `/dev/loopN`. The file is known by device and inode,
/// as the driver tells them; what it is called there does not matter.
///
/// # Errors
/// [`DeviceUseError::Read`] when a device could not be asked, which needs root or the group `disk`.
pub fn loops_of_file(file: &File) -> Result<Vec<u32>, DeviceUseError> {
    let failed = |object: PathBuf, source| DeviceUseError::Read { path: object.clone(), object, source };
    let stat = file.metadata().map_err(|source| failed(PathBuf::from("the file"), source))?;
    let (device, inode) = (DeviceNumber::from_raw(stat.dev()), stat.ino());
    let all = loop_statuses().map_err(|(object, source)| failed(object, source))?;
    let of_file = |status: &LoopStatus| status.device == device && status.inode == inode;
    Ok(all.into_iter().filter(|(_, status)| of_file(status)).map(|(number, _)| number).collect())
}

/// Uses, or what could not be read.
type Found = Result<Vec<DeviceUse>, (PathBuf, io::Error)>;

/// The number of a block device; `None` if it is something else.
fn block_device(node: &Metadata) -> Option<DeviceNumber> {
    node.file_type().is_block_device().then(|| DeviceNumber::from_raw(node.rdev()))
}

/// The device, its partitions, and the disk it is a partition of.
fn family(device: DeviceNumber) -> Result<Vec<DeviceNumber>, (PathBuf, io::Error)> {
    let link = PathBuf::from(format!("/sys/dev/block/{device}"));
    let directory = fs::canonicalize(&link).map_err(|e| (link, e))?;
    let mut family = vec![device];
    if directory.join("partition").exists() {
        family.extend(directory.parent().and_then(number_of));
        return Ok(family);
    }
    for entry in entries(&directory)? {
        if entry.join("partition").exists() {
            family.extend(number_of(&entry));
        }
    }
    Ok(family)
}

/// The number of a device, given its directory in sysfs.
fn number_of(directory: &Path) -> Option<DeviceNumber> {
    let text = fs::read(directory.join("dev")).ok()?;
    crate::device::parse(text.trim_ascii())
}

fn mounts(family: &[DeviceNumber]) -> Found {
    let failed = |error| (PathBuf::from(OWN_TABLE), io::Error::other(error));
    let mut uses = Vec::new();
    let fields = Fields { mount_point: true, ..Fields::default() };
    let mut mounts = Mounts::all(fields).map_err(failed)?;
    loop {
        match mounts.next_mount() {
            Ok(Some(mount)) if family.contains(&mount.device) => {
                let mount_point = mount.mount_point.unwrap_or_default().into_owned();
                uses.push(DeviceUse::Mounted { device: mount.device, mount_point });
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            // Should it have been a mount of this device, then the claim on it tells.
            Err(ReadError::Malformed(_)) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(uses)
}

fn swaps(family: &[DeviceNumber]) -> Found {
    let path = Path::new("/proc/swaps");
    let text = match fs::read(path) {
        Ok(text) => text,
        // The kernel is built without swap.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err((path.into(), e)),
    };
    let mut uses = Vec::new();
    for name in parse_swaps(&text) {
        // A device that cannot be looked at may be any.
        match name.metadata().map(|node| block_device(&node)) {
            Ok(Some(device)) if family.contains(&device) => uses.push(DeviceUse::Swap { device }),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err((name, e)),
        }
    }
    Ok(uses)
}

/// The names in `/proc/swaps` (proc(5)): after a line of titles one line for each, its escaped name first.
pub(crate) fn parse_swaps(text: &[u8]) -> impl Iterator<Item = PathBuf> {
    lines(text).skip(1).filter_map(|line| {
        let end = line.iter().position(|b| matches!(b, b' ' | b'\t'))?;
        Some(path_buf(unescape(&line[..end]).into_owned()))
    })
}

fn holders(family: &[DeviceNumber]) -> Found {
    let mut uses = Vec::new();
    for device in family {
        for entry in entries(Path::new(&format!("/sys/dev/block/{device}/holders")))? {
            let holder = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            uses.push(DeviceUse::Holder { device: *device, holder });
        }
    }
    Ok(uses)
}

/// Asks the driver, since the name of a device in another mount namespace means nothing here.
fn loops(family: &[DeviceNumber]) -> Found {
    let of_family = |(number, status): (u32, LoopStatus)| {
        let device = status.block_device;
        family.contains(&device).then_some(DeviceUse::Loop { device, number })
    };
    Ok(loop_statuses()?.into_iter().filter_map(of_family).collect())
}

/// What the driver knows of each loop device that has a file.
fn loop_statuses() -> Result<Vec<(u32, LoopStatus)>, (PathBuf, io::Error)> {
    let mut statuses = Vec::new();
    for entry in entries(Path::new("/sys/block"))? {
        let name = entry.file_name().unwrap_or_default();
        let number = name.as_encoded_bytes().strip_prefix(b"loop").and_then(crate::device::number);
        // The directory is there while a file is attached.
        let Some(number) = number.filter(|_| entry.join("loop").exists()) else { continue };
        let node = Path::new("/dev").join(name);
        let handle = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&node);
        match handle.and_then(|handle| loop_status(handle.as_fd())) {
            Ok(status) => statuses.push((number, status)),
            // Detached since.
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => {}
            Err(e) => return Err((node, e)),
        }
    }
    Ok(statuses)
}

/// The paths in a directory; none if there is no such directory.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let read = match fs::read_dir(directory) {
        Ok(read) => read,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err((directory.into(), e)),
    };
    read.map(|entry| entry.map(|entry| entry.path()).map_err(|e| (directory.into(), e))).collect()
}

/// Whether the device of this node cannot be opened for oneself alone.
fn is_claimed(node: &File) -> io::Result<bool> {
    let path = format!("/proc/thread-self/fd/{}", node.as_raw_fd());
    match File::options().read(true).custom_flags(libc::O_EXCL | libc::O_NONBLOCK).open(path) {
        Ok(_) => Ok(false),
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Ok(true),
        Err(e) => Err(e),
    }
}
