//! Where a block device is, as the host names it, and its directory in sysfs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use vc_types::{PciPath, PciSlot};

/// What tells one block device from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockAddress {
    /// A virtio block device, by the slots on the way to it.
    Pci(PciPath),
    /// A disk of a virtio SCSI controller.
    Scsi(ScsiAddress),
    /// A device that has no address but its name: on virtio-mmio, or persistent memory.
    Name(DeviceName),
}

impl BlockAddress {
    /// The kernel modules that may have to be loaded before the device can appear.
    pub(crate) fn modules(&self) -> &'static [&'static str] {
        match self {
            Self::Pci(_) => &["virtio_blk"],
            Self::Scsi(_) => &["virtio_scsi", "sd_mod"],
            Self::Name(name) if name.is_memory() => &["virtio_pmem", "nfit", "nd_pmem"],
            Self::Name(_) => &["virtio_mmio", "virtio_blk"],
        }
    }

    /// The directory of the block device in sysfs, below `root`.
    pub(super) fn find(&self, root: &Path) -> Option<PathBuf> {
        match self {
            Self::Pci(path) => find_pci(root, path),
            Self::Scsi(address) => find_scsi(root, *address),
            Self::Name(name) => Some(root.join("sys/class/block").join(&name.0)).filter(|path| path.exists()),
        }
    }
}

impl fmt::Display for BlockAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(path) => write!(f, "PCI path {path}"),
            Self::Scsi(address) => write!(f, "SCSI address {address}"),
            Self::Name(name) => write!(f, "/dev/{}", name.0),
        }
    }
}

/// Target and logical unit on the bus of a virtio SCSI controller, written `id:lun`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScsiAddress {
    /// The target: 0 to 255 (virtio 1.2, section 5.6.6.1).
    pub target: u8,
    /// The logical unit: 0 to 16383.
    pub lun: u16,
}

/// Logical units are addressed with 14 bits (virtio 1.2, section 5.6.6.1).
const MAX_LUN: u16 = 16_383;

impl fmt::Display for ScsiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.target, self.lun)
    }
}

/// A text that names no block device.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// No `id:lun`.
    #[error("{0:?} is no SCSI address; write it as target:lun, in decimal digits")]
    Scsi(String),
    /// No device node.
    #[error("{0:?} is no block device; write it as /dev/name")]
    Name(String),
}

impl FromStr for ScsiAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
        let parsed = text.split_once(':').filter(|_| plain).and_then(|(target, lun)| {
            let lun = lun.parse().ok().filter(|lun| *lun <= MAX_LUN)?;
            Some(Self { target: target.parse().ok()?, lun })
        });
        parsed.ok_or_else(|| InvalidAddress::Scsi(text.to_owned()))
    }
}

/// The kernel's name of a block device: `vda`, `pmem0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceName(String);

impl DeviceName {
    fn is_memory(&self) -> bool {
        self.0.starts_with("pmem")
    }
}

impl FromStr for DeviceName {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let name = text.strip_prefix("/dev/").unwrap_or_default();
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        plain.then(|| Self(name.to_owned())).ok_or_else(|| InvalidAddress::Name(text.to_owned()))
    }
}

/// `…/virtioN/block/vdX` below the PCI device.
fn find_pci(root: &Path, path: &PciPath) -> Option<PathBuf> {
    let mut device = root.join("sys/devices/pci0000:00");
    for slot in path.slots() {
        device = children(&device).find(|child| is_slot(child, *slot))?;
    }
    let function = children(&device).find(|child| file_name(child).starts_with("virtio"))?;
    children(&function.join("block")).next()
}

/// Whether a directory of sysfs, named `domain:bus:device.function`, is in this slot of its bus.
fn is_slot(directory: &Path, slot: PciSlot) -> bool {
    let wanted = format!("{:02x}.{:x}", slot.device(), slot.function());
    let name = file_name(directory);
    name.len() == "0000:00:00.0".len() && name.rsplit(':').next() == Some(&wanted)
}

/// `block/sdX` below `HOST:0:TARGET:LUN`. Of several controllers the one with the lowest number has it:
/// the protocol knows of one only.
fn find_scsi(root: &Path, address: ScsiAddress) -> Option<PathBuf> {
    let wanted = format!(":0:{address}");
    let devices = children(&root.join("sys/bus/scsi/devices"));
    let host = |device: &PathBuf| {
        let number = file_name(device).strip_suffix(&wanted)?.parse::<u32>().ok()?;
        // A link into the tree of devices, where a virtio controller has `virtioN` on the way.
        let real = device.canonicalize().ok()?;
        real.components()
            .any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"virtio"))
            .then_some(number)
    };
    let (_, device) = devices.filter_map(|device| Some((host(&device)?, device))).min()?;
    children(&device.join("block")).next()
}

/// What is in a directory; nothing when it is not there.
fn children(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_scsi_address_is_two_decimal_numbers() {
        let address: ScsiAddress = "0:3".parse().unwrap();
        assert_eq!((address.target, address.lun, address.to_string()), (0, 3, "0:3".to_owned()));
        assert!("255:16383".parse::<ScsiAddress>().is_ok());
        for bad in ["", "0", "0:", ":0", "256:0", "0:16384", "0:0:0", "+1:0", "0:+1", "0:-1", "0x1:0", " 0:1"]
        {
            assert_eq!(bad.parse::<ScsiAddress>(), Err(InvalidAddress::Scsi(bad.to_owned())));
        }
    }

    #[test]
    fn a_name_is_one_plain_node() {
        for good in ["/dev/vda", "/dev/pmem0"] {
            assert!(good.parse::<DeviceName>().is_ok(), "{good:?}");
        }
        for bad in ["", "vda", "/dev/", "/dev/../x", "/dev/mapper/x", "/dev/vd a", "/dev//vda"] {
            assert_eq!(bad.parse::<DeviceName>(), Err(InvalidAddress::Name(bad.to_owned())));
        }
    }

    /// As Linux 6.1 shows two virtio controllers and one of another kind.
    #[test]
    fn a_disk_is_found_by_target_and_lun_on_a_virtio_controller() {
        let root = tempfile::tempdir().unwrap();
        let bus = root.path().join("sys/bus/scsi/devices");
        std::fs::create_dir_all(&bus).unwrap();
        for (controller, scsi, name) in [
            ("pci0000:00/0000:00:1f.2/ata1/host1/target1:0:0", "1:0:0:3", "sda"),
            ("pci0000:00/0000:00:05.0/virtio2/host12/target12:0:0", "12:0:0:3", "sdb"),
            ("pci0000:00/0000:00:04.0/virtio1/host2/target2:0:0", "2:0:0:3", "sdc"),
            ("pci0000:00/0000:00:04.0/virtio1/host2/target2:0:0", "2:0:0:13", "sdd"),
            ("pci0000:00/0000:00:04.0/virtio1/host2/target2:0:1", "2:0:1:3", "sde"),
        ] {
            let device = root.path().join("sys/devices").join(controller).join(scsi);
            std::fs::create_dir_all(device.join("block").join(name)).unwrap();
            symlink(&device, bus.join(scsi)).unwrap();
        }
        let found = |text: &str| {
            let path = BlockAddress::Scsi(text.parse().unwrap()).find(root.path())?;
            Some(file_name(&path).into_owned())
        };
        assert_eq!(found("0:3").as_deref(), Some("sdc"));
        assert_eq!(found("0:13").as_deref(), Some("sdd"));
        assert_eq!(found("1:3").as_deref(), Some("sde"));
        assert_eq!(found("0:1"), None);
    }
}
