//! Loop devices in sysfs (Documentation/ABI/stable/sysfs-block and testing/sysfs-block-loop).

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::LoopError;
use crate::DeviceNumber;
use crate::bytes::path_buf;
use crate::device;

/// A loop device, or a partition of one, and where it stands in sysfs.
pub(super) struct Node {
    pub(super) number: u32,
    /// The number of the whole device.
    pub(super) device: DeviceNumber,
    pub(super) partition: Option<Partition>,
    /// The directory of the whole device.
    directory: PathBuf,
}

/// Part of a disk, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Partition {
    pub(super) number: u32,
    pub(super) start: u64,
    pub(super) size: u64,
}

impl Node {
    /// Finds the device by its number. A minor number alone tells nothing: how many of them each device has
    /// depends on the driver's `max_part`, and partitions may have numbers of another major.
    pub(super) fn find(device: DeviceNumber) -> Result<Self, LoopError> {
        let link = PathBuf::from(format!("/sys/dev/block/{device}"));
        let directory = fs::canonicalize(&link).map_err(|source| match source.kind() {
            // Not without sysfs, though.
            io::ErrorKind::NotFound if Path::new("/sys/dev/block").exists() => LoopError::NotLoop { device },
            _ => LoopError::Sysfs { path: link, source },
        })?;
        let partition = Partition::read(&directory)?;
        let whole = match (&partition, directory.parent()) {
            (Some(_), Some(parent)) => parent.to_path_buf(),
            _ => directory,
        };
        Self::of_directory(whole, partition)?.ok_or(LoopError::NotLoop { device })
    }

    /// The whole device with this number.
    pub(super) fn whole(number: u32) -> Result<Self, LoopError> {
        let node = Self::of_directory(PathBuf::from(format!("/sys/block/loop{number}")), None)?;
        node.ok_or(LoopError::Detached { number })
    }

    fn of_directory(directory: PathBuf, partition: Option<Partition>) -> Result<Option<Self>, LoopError> {
        let number = directory.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_prefix("loop"));
        let Some(number) = number.and_then(|digits| device::number(digits.as_bytes())) else {
            return Ok(None);
        };
        let dev = directory.join("dev");
        let device = read(&dev)?;
        let device = device::parse(device.trim_ascii()).ok_or_else(|| malformed(dev))?;
        Ok(Some(Self { number, device, partition, directory }))
    }

    pub(super) fn dev_path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/loop{}", self.number))
    }

    /// The file's name.
    pub(super) fn backing_file(&self) -> Result<PathBuf, LoopError> {
        let path = self.directory.join("loop/backing_file");
        let name = fs::read(&path).map_err(|source| match source.raw_os_error() {
            // The directory `loop` is there while a file is attached.
            Some(libc::ENOENT) => LoopError::Detached { number: self.number },
            Some(libc::ENAMETOOLONG) => LoopError::PathTooLong { number: self.number },
            _ => LoopError::Sysfs { path, source },
        })?;
        Ok(parse_backing_file(name))
    }

    pub(super) fn is_read_only(&self) -> Result<bool, LoopError> {
        Ok(read(&self.directory.join("ro"))?.trim_ascii() == b"1")
    }
}

impl Partition {
    /// The partition whose directory this is; `None` for a whole disk.
    fn read(directory: &Path) -> Result<Option<Self>, LoopError> {
        /// The unit of sysfs, whatever the disk's own.
        const SECTOR: u64 = 512;
        if !directory.join("partition").exists() {
            return Ok(None);
        }
        let value = |name: &str| {
            let path = directory.join(name);
            parse_number(&read(&path)?).ok_or_else(|| malformed(path))
        };
        let number = value("partition")?;
        Ok(Some(Self {
            number: u32::try_from(number).map_err(|_| malformed(directory.join("partition")))?,
            start: value("start")?.saturating_mul(SECTOR),
            size: value("size")?.saturating_mul(SECTOR),
        }))
    }
}

/// The file's name: raw bytes, and one newline after them.
pub(crate) fn parse_backing_file(mut text: Vec<u8>) -> PathBuf {
    text.pop_if(|last| *last == b'\n');
    path_buf(text)
}

/// A number, and a newline after it.
pub(crate) fn parse_number(text: &[u8]) -> Option<u64> {
    device::decimal(text.trim_ascii())
}

fn read(path: &Path) -> Result<Vec<u8>, LoopError> {
    fs::read(path).map_err(|source| LoopError::Sysfs { path: path.into(), source })
}

fn malformed(path: PathBuf) -> LoopError {
    LoopError::Sysfs { path, source: io::ErrorKind::InvalidData.into() }
}
