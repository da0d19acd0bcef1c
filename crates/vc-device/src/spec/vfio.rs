//! Devices of the host that a machine gets for itself.

use std::fmt;
use std::fs::File;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vc_types::{Bdf, DeviceId};

/// A PCI function of the host, or a mediated device of that kind, that a machine is to get.
///
/// Whoever makes one has bound the function to a VFIO driver, and passes all members of its IOMMU
/// group: the kernel opens a group only when nobody else drives a part of it.
#[derive(Clone, Debug)]
pub struct VfioPciSpec {
    /// Names the device within its machine.
    pub id: DeviceId,
    /// Which device; this, not a path, is its identity.
    pub function: VfioFunction,
    /// How the hypervisor opens it.
    pub handle: VfioHandle,
}

/// What VFIO passes: a function, or a part of one that its driver made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VfioFunction {
    /// A PCI function.
    Pci(Bdf),
    /// A mediated device, `/sys/bus/mdev/devices/UUID`.
    Mdev(MdevId),
}

impl fmt::Display for VfioFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(bdf) => bdf.fmt(f),
            Self::Mdev(id) => id.fmt(f),
        }
    }
}

/// How a VFIO device is opened (the kernel's `Documentation/driver-api/vfio.rst`).
#[derive(Clone, Debug)]
pub enum VfioHandle {
    /// By its IOMMU group, `/dev/vfio/NUMBER`, which the hypervisor opens itself.
    Group(u32),
    /// By its own character device, `/dev/vfio/devices/vfioN`, and an IOMMUFD, both open.
    Cdev {
        /// `/dev/vfio/devices/vfioN`.
        device: Arc<File>,
        /// `/dev/iommu`; devices that share memory mappings share one.
        iommufd: Arc<File>,
    },
}

/// Queues of cryptographic adapters (IBM Z) that a machine is to get as one mediated device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfioApSpec {
    /// Names the device within its machine.
    pub id: DeviceId,
    /// The mediated device, `/sys/devices/vfio_ap/matrix/UUID`.
    pub mdev: MdevId,
    /// The queues in it, which the agent waits for.
    pub queues: Vec<ApQueue>,
}

/// Not the id of a mediated device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id of a mediated device: a UUID in lower case, as /sys/bus/mdev/devices has it")]
pub struct InvalidMdev(String);

/// The UUID of a mediated device, as sysfs writes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MdevId(u128);

impl MdevId {
    /// The UUID of zeros.
    pub const NIL: Self = Self(0);
}

impl fmt::Display for MdevId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        let (a, rest) = digits.split_at(8);
        let (b, rest) = rest.split_at(4);
        let (c, rest) = rest.split_at(4);
        let (d, e) = rest.split_at(4);
        write!(f, "{a}-{b}-{c}-{d}-{e}")
    }
}

impl fmt::Debug for MdevId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MdevId({self})")
    }
}

impl FromStr for MdevId {
    type Err = InvalidMdev;

    fn from_str(text: &str) -> Result<Self, InvalidMdev> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let id = u128::from_str_radix(&digits, 16).ok().map(Self);
        // Written back, so that dashes stand where they belong.
        id.filter(|id| id.to_string() == text).ok_or_else(|| InvalidMdev(text.to_owned()))
    }
}

/// Not an AP queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no AP queue; write it as adapter.domain, such as 05.001f")]
pub struct InvalidApQueue(String);

/// A queue of a cryptographic adapter, `05.001f` (the kernel's `Documentation/arch/s390/vfio-ap.rst`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApQueue {
    adapter: u8,
    domain: u16,
}

impl ApQueue {
    /// Queue `domain` of `adapter`.
    pub const fn new(adapter: u8, domain: u16) -> Self {
        Self { adapter, domain }
    }
}

impl fmt::Display for ApQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}.{:04x}", self.adapter, self.domain)
    }
}

impl fmt::Debug for ApQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApQueue({self})")
    }
}

impl FromStr for ApQueue {
    type Err = InvalidApQueue;

    fn from_str(text: &str) -> Result<Self, InvalidApQueue> {
        let parse = || {
            let (adapter, domain) = text.split_once('.')?;
            let queue =
                Self::new(u8::from_str_radix(adapter, 16).ok()?, u16::from_str_radix(domain, 16).ok()?);
            (queue.to_string() == text).then_some(queue)
        };
        parse().ok_or_else(|| InvalidApQueue(text.to_owned()))
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(MdevId, ApQueue);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mdev_ids_are_read_as_sysfs_writes_them() {
        let text = "f79944e4-5a3d-11e8-99ce-479cbab002e4";
        assert_eq!(text.parse::<MdevId>().unwrap().to_string(), text);
        let upper = text.to_uppercase();
        for bad in [
            "",
            "f79944e4-5a3d-11e8-99ce-",
            "f79944e4-5a3d-11e8-99ce",
            "test",
            &upper,
            "f79944e45a3d11e899ce479cbab002e4",
        ] {
            assert!(bad.parse::<MdevId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ap_queues_are_read_as_the_matrix_writes_them() {
        assert_eq!("05.001f".parse::<ApQueue>(), Ok(ApQueue::new(5, 0x1f)));
        for bad in ["", "05", "5.1f", "05.001F", "05.001f.", "+5.001f", "100.0000"] {
            assert!(bad.parse::<ApQueue>().is_err(), "{bad:?}");
        }
    }
}
