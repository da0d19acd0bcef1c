//! IOMMU groups: what the host can pass on only as a whole.

use vc_types::Bdf;

use super::{PciFunction, Sysfs, SysfsError};
use crate::spec::{ApQueue, MdevId, VfioFunction};

/// An IOMMU group (`Documentation/driver-api/vfio.rst`): its members see each other's transfers, so
/// they go to one machine together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IommuGroup {
    /// Its number, which is also the name of `/dev/vfio/NUMBER`.
    pub number: u32,
    /// Its members, PCI functions first and by address; bridges included.
    pub members: Vec<GroupMember>,
}

/// A member of an IOMMU group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupMember {
    /// A PCI function.
    Pci(PciFunction),
    /// A mediated device: a part of a function, made by its driver.
    Mdev(MdevId),
    /// A mediated device of cryptographic queues.
    Ap {
        /// Its name.
        mdev: MdevId,
        /// What is in it.
        queues: Vec<ApQueue>,
    },
}

impl GroupMember {
    /// What VFIO knows it as.
    pub fn function(&self) -> VfioFunction {
        match self {
            Self::Pci(function) => VfioFunction::Pci(function.bdf),
            Self::Mdev(mdev) | Self::Ap { mdev, .. } => VfioFunction::Mdev(*mdev),
        }
    }

    /// The function itself, if it is a PCI function.
    pub fn pci(&self) -> Option<&PciFunction> {
        match self {
            Self::Pci(function) => Some(function),
            Self::Mdev(_) | Self::Ap { .. } => None,
        }
    }

    /// Whether it is only a part of the way to other devices.
    pub fn is_way_to_others(&self) -> bool {
        self.pci().is_some_and(|function| function.class.is_way_to_others())
    }
}

impl Sysfs {
    /// The group of this number; `None` if the host has none.
    ///
    /// # Errors
    /// [`SysfsError`] when a member cannot be read, or is of a kind that is not known: a group that is
    /// known only in part must not be passed on.
    pub fn iommu_group(&self, number: u32) -> Result<Option<IommuGroup>, SysfsError> {
        let directory = format!("kernel/iommu_groups/{number}/devices");
        let Some(names) = self.names(&directory)? else { return Ok(None) };
        let mut members = Vec::new();
        for name in &names {
            members.push(self.group_member(&directory, name)?);
        }
        members.sort_by_key(GroupMember::function);
        Ok(Some(IommuGroup { number, members }))
    }

    /// The numbers of all groups, in numeric order; none on a host without an IOMMU.
    ///
    /// # Errors
    /// [`SysfsError`] when they cannot be listed.
    pub fn iommu_groups(&self) -> Result<Vec<u32>, SysfsError> {
        let names = self.names("kernel/iommu_groups")?.unwrap_or_default();
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The group of the device behind `/dev/vfio/devices/vfioN`, and which device it is; `None` if the
    /// host has no such device.
    ///
    /// # Errors
    /// [`SysfsError`] when its links lead nowhere.
    pub fn vfio_cdev(&self, number: u32) -> Result<Option<(u32, VfioFunction)>, SysfsError> {
        let device = format!("class/vfio-dev/vfio{number}/device");
        let Some(name) = self.link_name(&device)? else { return Ok(None) };
        if !self.exists(&format!("class/vfio-dev/vfio{number}/dev")) {
            return Ok(None);
        }
        let function = name.parse().map(VfioFunction::Pci).or_else(|_| name.parse().map(VfioFunction::Mdev));
        let function = function.map_err(|_| self.malformed(&device, &name, "a PCI function or an mdev"))?;
        let link = format!("{device}/iommu_group");
        let group = self.link_name(&link)?.unwrap_or_default();
        let group = group.parse().map_err(|_| self.malformed(&link, &group, "an IOMMU group"))?;
        Ok(Some((group, function)))
    }

    fn group_member(&self, directory: &str, name: &str) -> Result<GroupMember, SysfsError> {
        let file = format!("{directory}/{name}");
        if let Ok(bdf) = name.parse::<Bdf>() {
            let function = self.pci_function(bdf)?;
            return function
                .map(GroupMember::Pci)
                .ok_or_else(|| self.malformed(&file, name, "the address of a PCI function"));
        }
        let known = "a PCI function or a mediated device";
        let mdev = name.parse::<MdevId>().map_err(|_| self.malformed(&file, name, known))?;
        let matrix = format!("{file}/matrix");
        if !self.exists(&matrix) {
            return Ok(GroupMember::Mdev(mdev));
        }
        let text = self.text(&matrix)?.unwrap_or_default();
        let queues = text.lines().map(str::parse).collect::<Result<_, _>>();
        let queues = queues.map_err(|_| self.malformed(&matrix, &text, "AP queues, one on each line"))?;
        Ok(GroupMember::Ap { mdev, queues })
    }
}
