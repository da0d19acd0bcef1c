//! Why the file behind a loop device is not known, or not usable.

use std::io;
use std::num::NonZeroU64;
use std::path::PathBuf;

use crate::DeviceNumber;

/// Why the file behind a loop device is not known, or not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoopError {
    /// The device is of another driver, or does not exist.
    #[error("device {device} is not a loop device")]
    NotLoop {
        /// The device asked about.
        device: DeviceNumber,
    },
    /// No file is attached to the device.
    #[error("no file is attached to /dev/loop{number}")]
    Detached {
        /// The device's number.
        number: u32,
    },
    /// The file has no name any more (or only another hard link, which nothing tells).
    #[error("the file behind /dev/loop{number} was deleted: it was {path:?}")]
    Deleted {
        /// The device's number.
        number: u32,
        /// The name it had last.
        path: PathBuf,
    },
    /// The file has another name than before, or gets new ones all the time.
    #[error("the file behind /dev/loop{number} was renamed; it was {before:?} before")]
    Renamed {
        /// The device's number.
        number: u32,
        /// A name it had.
        before: PathBuf,
    },
    /// The device got another file.
    #[error("/dev/loop{number} was attached to another file meanwhile")]
    Rebound {
        /// The device's number.
        number: u32,
    },
    /// The name belongs to another mount namespace or root: here it names nothing, or another file.
    #[error(
        "the file behind /dev/loop{number} is {path:?} of another mount namespace; here that is not the same file"
    )]
    Elsewhere {
        /// The device's number.
        number: u32,
        /// The name there.
        path: PathBuf,
    },
    /// The file's path does not fit the page in which the kernel would tell it.
    #[error("the path of the file behind /dev/loop{number} is too long for the kernel to tell")]
    PathTooLong {
        /// The device's number.
        number: u32,
    },
    /// The device is a part of its file, while all of the file is wanted.
    #[error(
        "/dev/loop{number} is only a part of {path:?}: from byte {offset}{}",
        .size_limit.map(|limit| format!(", {limit} bytes")).unwrap_or_default()
    )]
    Window {
        /// The device's number.
        number: u32,
        /// The file.
        path: PathBuf,
        /// Where the device starts in it.
        offset: u64,
        /// How many bytes it has at most.
        size_limit: Option<NonZeroU64>,
    },
    /// The device node is not the device that sysfs means.
    #[error("{path:?} is not the device node of {device}; is /dev populated?")]
    WrongNode {
        /// The node.
        path: PathBuf,
        /// What it should be.
        device: DeviceNumber,
    },
    /// The device node could not be asked.
    #[error("cannot ask {path:?} for its file; only root and the group disk may")]
    Device {
        /// The node.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file in sysfs could not be read.
    #[error("cannot read {path:?}")]
    Sysfs {
        /// The file in sysfs.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file behind the device could not be looked at.
    #[error("cannot look at {path:?}, the file behind the loop device")]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}
