//! Block devices: an image or a host's disk that a machine gets as a disk.

use std::fmt;
use std::fs::File;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vc_types::{DeviceId, HostPath};

use super::text::is_option_value;

/// A disk that a machine is to get.
///
/// The image is an open file, not a path: what was checked is what is plugged, whatever happens to
/// the name meanwhile. Any combination of values is valid, so [`BlockSpec::new`] may be amended:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let image = std::sync::Arc::new(std::fs::File::open("/dev/null")?);
/// # let name = vc_types::HostPath::new("/layers/0.erofs")?;
/// use vc_device::{Access, BlockSpec};
///
/// let serial = Some("layer0".parse()?);
/// let disk = BlockSpec { serial, ..BlockSpec::new("disk0".parse()?, image, name, Access::ReadOnly) };
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct BlockSpec {
    /// Names the device within its machine.
    pub id: DeviceId,
    /// The image, open for what `access` says.
    pub image: Arc<File>,
    /// What the image was called when it was opened, for messages only.
    pub name: HostPath,
    /// Whether `image` is a regular file or a disk of the host.
    pub backend: BlockBackend,
    /// How `image` is laid out. Never guessed: a guest could write another format's header into a raw
    /// image.
    pub format: ImageFormat,
    /// Whether the guest may write. `image` must be open accordingly.
    pub access: Access,
    /// What the guest finds in the disk's `serial` attribute.
    pub serial: Option<Serial>,
    /// The disk's logical block size; the hypervisor's default (512) if not given.
    pub logical_block_size: Option<BlockSize>,
    /// How the host reads and writes the image.
    pub io: IoPolicy,
}

impl BlockSpec {
    /// A raw image in a regular file, with the host's cache and nothing else asked for.
    pub fn new(id: DeviceId, image: Arc<File>, name: HostPath, access: Access) -> Self {
        Self {
            id,
            image,
            name,
            backend: BlockBackend::File,
            format: ImageFormat::Raw,
            access,
            serial: None,
            logical_block_size: None,
            io: IoPolicy::default(),
        }
    }
}

/// What an image is on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockBackend {
    /// A regular file.
    File,
    /// A block device of the host, a loop device included.
    HostDevice,
}

/// How an image is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageFormat {
    /// Byte for byte what the guest sees.
    Raw,
    /// QEMU's copy-on-write format. A backing file that its header names is not opened.
    Qcow2,
}

/// Whether the guest may write to a device. Decided once, and told to the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Reads only. Several machines may share the image.
    ReadOnly,
    /// Reads and writes. Nobody else may have the image open.
    ReadWrite,
}

/// Whether the host's page cache stands between the disk and the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostCache {
    /// Through the page cache (`cache.direct=off`).
    Buffered,
    /// Around it (`cache.direct=on`, `O_DIRECT`).
    Direct,
}

/// How the hypervisor asks the kernel to read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AioBackend {
    /// A pool of threads.
    Threads,
    /// Linux's native AIO.
    Native,
    /// io_uring.
    IoUring,
}

/// Native AIO was asked for through the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "native AIO works only around the page cache: ask for direct I/O as well, or for threads or io_uring"
)]
pub struct NativeNeedsDirect;

/// How the host reads and writes an image: a cache and an AIO backend that go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IoPolicy {
    cache: HostCache,
    aio: AioBackend,
}

impl IoPolicy {
    /// Checks that the two go together.
    ///
    /// # Errors
    /// [`NativeNeedsDirect`] for native AIO through the page cache, which QEMU refuses
    /// (qemu-system(1), `-blockdev`, `aio`).
    pub const fn new(cache: HostCache, aio: AioBackend) -> Result<Self, NativeNeedsDirect> {
        match (cache, aio) {
            (HostCache::Buffered, AioBackend::Native) => Err(NativeNeedsDirect),
            _ => Ok(Self { cache, aio }),
        }
    }

    /// Whether the page cache is used.
    pub const fn cache(self) -> HostCache {
        self.cache
    }

    /// How the kernel is asked.
    pub const fn aio(self) -> AioBackend {
        self.aio
    }
}

impl Default for IoPolicy {
    /// Threads through the page cache, which works with every kernel and file system.
    fn default() -> Self {
        Self { cache: HostCache::Buffered, aio: AioBackend::Threads }
    }
}

/// Not a logical block size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no logical block size: 512, 1024, 2048 or 4096 bytes")]
pub struct InvalidBlockSize(pub u32);

/// A disk's logical block size in bytes: 512, 1024, 2048 or 4096. More than its page size is refused by
/// the guest's kernel (`blk_validate_block_size`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockSize(u32);

impl BlockSize {
    /// Checks the size.
    ///
    /// # Errors
    /// [`InvalidBlockSize`] for anything but a power of two from 512 to 4096.
    pub const fn new(bytes: u32) -> Result<Self, InvalidBlockSize> {
        match bytes {
            512 | 1024 | 2048 | 4096 => Ok(Self(bytes)),
            _ => Err(InvalidBlockSize(bytes)),
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

/// Not a serial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no disk serial: 1 to 20 printable ASCII characters, no comma")]
pub struct InvalidSerial(String);

/// A disk's serial: 1 to 20 printable ASCII characters (virtio 1.2, section 5.2.6.1), no comma,
/// which QEMU would take as the end of the option.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Serial(Box<str>);

impl Serial {
    /// The serial as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Serial {
    type Err = InvalidSerial;

    fn from_str(text: &str) -> Result<Self, InvalidSerial> {
        if is_option_value(text, 20) { Ok(Self(text.into())) } else { Err(InvalidSerial(text.to_owned())) }
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_fit_the_device() {
        assert_eq!("layer-0".parse::<Serial>().unwrap().as_str(), "layer-0");
        let long = "x".repeat(21);
        for bad in ["", "a,b", "a b", "ä", &long] {
            assert!(bad.parse::<Serial>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn block_sizes_are_those_that_a_guest_takes() {
        for good in [512, 1024, 2048, 4096] {
            assert_eq!(BlockSize::new(good).unwrap().bytes(), good);
        }
        for bad in [0, 1, 511, 513, 1536, 8192, u32::MAX] {
            assert_eq!(BlockSize::new(bad), Err(InvalidBlockSize(bad)));
        }
    }

    #[test]
    fn native_aio_needs_direct_io() {
        use {AioBackend::*, HostCache::*};
        assert_eq!(IoPolicy::new(Buffered, Native), Err(NativeNeedsDirect));
        for (cache, aio) in
            [(Buffered, Threads), (Buffered, IoUring), (Direct, Threads), (Direct, Native), (Direct, IoUring)]
        {
            let policy = IoPolicy::new(cache, aio).unwrap();
            assert_eq!((policy.cache(), policy.aio()), (cache, aio));
        }
        assert_eq!(IoPolicy::default(), IoPolicy::new(Buffered, Threads).unwrap());
    }
}
