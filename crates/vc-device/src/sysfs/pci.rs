//! A PCI function of the host.

use std::fmt;

use serde::{Deserialize, Serialize};
use vc_types::Bdf;

use super::{Sysfs, SysfsError, length};

/// The size of a conventional function's configuration space; an express function has 4096 bytes
/// (PCI Express base specification, section 7.2).
const CONVENTIONAL_CONFIG: u64 = 256;

/// A PCI function of the host, as sysfs describes it (`Documentation/PCI/sysfs-pci.rst`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciFunction {
    /// Its address.
    pub bdf: Bdf,
    /// Who made it.
    pub vendor: u16,
    /// Which product.
    pub device: u16,
    /// What it does.
    pub class: PciClass,
    /// The driver that it is bound to.
    pub driver: Option<String>,
    /// Its IOMMU group.
    pub iommu_group: Option<u32>,
    /// Whether it is PCI Express rather than conventional PCI. A virtual function counts as express: it
    /// exists only there.
    pub is_express: bool,
    /// The function that it is a virtual function of (SR-IOV).
    pub physical_function: Option<Bdf>,
    /// The number of its VFIO character device, `/dev/vfio/devices/vfioN`.
    pub vfio_cdev: Option<u32>,
}

impl PciFunction {
    /// Whether a driver holds it that hands it out to user space: `vfio-pci` or one of its variants,
    /// such as `mlx5_vfio_pci`.
    pub fn is_bound_to_vfio(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| driver.contains("vfio"))
    }
}

/// A PCI class code: base class, subclass, programming interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PciClass(pub u32);

impl PciClass {
    /// Base class and subclass, as in `0x0604`.
    pub const fn subclass(self) -> u32 {
        self.0 >> 8
    }

    /// Whether it is a host bridge (0600) or a PCI bridge (0604): a part of the way to other devices,
    /// never passed on. Compared as a whole; other bridges, such as NVSwitch (0680), are devices.
    pub const fn is_way_to_others(self) -> bool {
        matches!(self.subclass(), 0x0600 | 0x0604)
    }
}

impl fmt::Display for PciClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#08x}", self.0)
    }
}

impl fmt::Debug for PciClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PciClass({self})")
    }
}

impl Sysfs {
    /// The function at `bdf`; `None` if the host has none there.
    ///
    /// # Errors
    /// [`SysfsError`] when something is there that cannot be read or understood.
    pub fn pci_function(&self, bdf: Bdf) -> Result<Option<PciFunction>, SysfsError> {
        let directory = format!("bus/pci/devices/{bdf}");
        let Some(vendor) = self.hex(&format!("{directory}/vendor"))? else { return Ok(None) };
        let device = self.hex(&format!("{directory}/device"))?.unwrap_or_default();
        let class = self.hex(&format!("{directory}/class"))?.unwrap_or_default();
        let group = self.link_name(&format!("{directory}/iommu_group"))?;
        let physical = self.link_name(&format!("{directory}/physfn"))?;
        let cdevs = self.names(&format!("{directory}/vfio-dev"))?.unwrap_or_default();
        let narrow = |number: u32, file: &str| {
            u16::try_from(number).map_err(|_| self.malformed(file, &format!("{number:#x}"), "16 bits"))
        };
        Ok(Some(PciFunction {
            bdf,
            vendor: narrow(vendor, &format!("{directory}/vendor"))?,
            device: narrow(device, &format!("{directory}/device"))?,
            class: PciClass(class),
            driver: self.link_name(&format!("{directory}/driver"))?,
            iommu_group: group.and_then(|name| name.parse().ok()),
            is_express: physical.is_some()
                || length(&self.path(&format!("{directory}/config"))) > CONVENTIONAL_CONFIG,
            physical_function: physical.and_then(|name| name.parse().ok()),
            // Kernels before 6.6 have the directory, but no device node (`dev`).
            vfio_cdev: cdevs.iter().find_map(|name| {
                let has_node = self.exists(&format!("{directory}/vfio-dev/{name}/dev"));
                name.strip_prefix("vfio")?.parse().ok().filter(|_| has_node)
            }),
        }))
    }

    /// All functions of the host, by address. Files with other names are passed over.
    ///
    /// # Errors
    /// As [`Sysfs::pci_function`].
    pub fn pci_functions(&self) -> Result<Vec<PciFunction>, SysfsError> {
        let names = self.names("bus/pci/devices")?.unwrap_or_default();
        let mut addresses: Vec<Bdf> = names.iter().filter_map(|name| name.parse().ok()).collect();
        addresses.sort();
        addresses.into_iter().filter_map(|bdf| self.pci_function(bdf).transpose()).collect()
    }

    fn hex(&self, file: &str) -> Result<Option<u32>, SysfsError> {
        let Some(text) = self.text(file)? else { return Ok(None) };
        let number = text.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
        number.map(Some).ok_or_else(|| self.malformed(file, &text, "a number such as 0x8086"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l25_only_host_and_pci_bridges_are_ways_to_others() {
        for class in [0x06_0000, 0x06_0400, 0x06_0401] {
            assert!(PciClass(class).is_way_to_others(), "{class:#x}");
        }
        // The seed's bit mask took all of these for bridges: NVSwitch, serial, input, wireless …
        for class in [0x06_8000, 0x03_0200, 0x04_0300, 0x07_0000, 0x0e_0000, 0x0f_0000, 0x0c_0600, 0] {
            assert!(!PciClass(class).is_way_to_others(), "{class:#x}");
        }
    }
}
