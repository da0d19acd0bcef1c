//! Devices that another process serves over a Unix socket (QEMU's `docs/interop/vhost-user.rst`).

use std::fmt;
use std::str::FromStr;

use vc_types::{DeviceId, HostPath};

use super::text::is_option_value;

/// A disk that another process serves, such as SPDK.
///
/// Whether the guest may write is the server's to say; the protocol has no request for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostUserBlkSpec {
    /// Names the device within its machine.
    pub id: DeviceId,
    /// The server's socket.
    pub socket: HostPath,
    /// How many requests a queue holds.
    pub queue_size: QueueSize,
}

/// A directory that another process serves, such as virtiofsd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostUserFsSpec {
    /// Names the device within its machine.
    pub id: DeviceId,
    /// The server's socket.
    pub socket: HostPath,
    /// What the guest mounts it by.
    pub tag: FsTag,
    /// How many requests a queue holds.
    pub queue_size: QueueSize,
}

/// Not a queue size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no queue size: a power of two from 2 to 1024")]
pub struct InvalidQueueSize(pub u16);

/// How many requests a virtqueue holds: a power of two from 2 to 1024 (`VIRTQUEUE_MAX_SIZE` in QEMU).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueSize(u16);

impl QueueSize {
    /// Checks the size.
    ///
    /// # Errors
    /// [`InvalidQueueSize`] for anything but a power of two from 2 to 1024.
    pub const fn new(size: u16) -> Result<Self, InvalidQueueSize> {
        if size < 2 || size > 1024 || !size.is_power_of_two() {
            return Err(InvalidQueueSize(size));
        }
        Ok(Self(size))
    }

    /// The number of requests.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for QueueSize {
    /// 128, as QEMU's own default for both devices.
    fn default() -> Self {
        Self(128)
    }
}

/// Not a tag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no tag of a shared directory: 1 to 36 printable ASCII characters, no comma")]
pub struct InvalidFsTag(String);

/// The name that a guest mounts a shared directory by: 1 to 36 printable ASCII characters (virtio 1.2,
/// section 5.11.4), no comma, which QEMU would take as the end of the option.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FsTag(Box<str>);

impl FsTag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FsTag {
    type Err = InvalidFsTag;

    fn from_str(text: &str) -> Result<Self, InvalidFsTag> {
        if is_option_value(text, 36) { Ok(Self(text.into())) } else { Err(InvalidFsTag(text.to_owned())) }
    }
}

impl fmt::Debug for FsTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FsTag({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_sizes_are_powers_of_two() {
        for good in [2, 128, 1024] {
            assert_eq!(QueueSize::new(good).unwrap().get(), good);
        }
        for bad in [0, 1, 3, 1000, 2048, u16::MAX] {
            assert_eq!(QueueSize::new(bad), Err(InvalidQueueSize(bad)));
        }
    }

    #[test]
    fn tags_fit_the_device() {
        assert_eq!("shared".parse::<FsTag>().unwrap().as_str(), "shared");
        let long = "x".repeat(37);
        for bad in ["", "a,b", "a b", "ä", "a\0", &long] {
            assert!(bad.parse::<FsTag>().is_err(), "{bad:?}");
        }
    }
}
