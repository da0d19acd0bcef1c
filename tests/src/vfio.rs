//! PCI functions of the host that tests may take: those that `VC_TEST_VFIO` names, and no other.
//!
//! `cargo xtask integration` sets the variable: in a nested host to the devices that were made for it, on a user's host to
//! what `--vfio` names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::skip;

const DEVICES: &str = "/sys/bus/pci/devices";

/// Class and programming interface of an NVMe controller (PCI Code and ID Assignment Specification).
const NVME: &str = "0x010802";

/// How long a driver may take to find its device.
const PATIENCE: Duration = Duration::from_secs(60);

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciFunction(String);

impl PciFunction {
    /// An NVMe disk that has its IOMMU group for itself.
    pub fn nvme_alone() -> Option<Self> {
        Self::find("an NVMe disk in an IOMMU group of its own", |function| {
            function.is_nvme() && function.group().len() == 1
        })
    }

    /// An NVMe disk that shares its IOMMU group with another function.
    pub fn nvme_in_company() -> Option<Self> {
        Self::find("an NVMe disk that shares its IOMMU group", |function| {
            function.is_nvme() && function.group().len() == 2
        })
    }

    /// Two graphics cards in IOMMU groups of their own, by address.
    pub fn two_displays() -> Option<[Self; 2]> {
        let mut displays = Self::allowed();
        displays.retain(|function| function.is_display() && function.group().len() == 1);
        let found: Result<[Self; 2], _> = displays.try_into();
        if found.is_err() {
            skip_device("two graphics cards in IOMMU groups of their own");
        }
        found.ok()
    }

    fn find(what: &str, fits: impl Fn(&Self) -> bool) -> Option<Self> {
        let found = Self::allowed().into_iter().find(fits);
        if found.is_none() {
            skip_device(what);
        }
        found
    }

    fn allowed() -> Vec<Self> {
        let allowed = std::env::var("VC_TEST_VFIO").unwrap_or_default();
        allowed.split(',').filter(|address| !address.is_empty()).map(|address| Self(address.into())).collect()
    }

    /// Its address, such as `0000:01:00.0`.
    pub fn address(&self) -> &str {
        &self.0
    }

    /// All functions of its IOMMU group.
    ///
    /// # Panics
    /// When it has none.
    pub fn group(&self) -> Vec<Self> {
        let members = fs::read_dir(self.path("iommu_group/devices")).expect("the IOMMU is on");
        let mut members: Vec<_> =
            members.map(|member| member.expect("sysfs").file_name().to_string_lossy().into_owned()).collect();
        members.sort();
        members.into_iter().map(Self).collect()
    }

    /// The number of its IOMMU group.
    ///
    /// # Panics
    /// When it has none.
    pub fn group_number(&self) -> u32 {
        let group = fs::read_link(self.path("iommu_group")).expect("the IOMMU is on");
        group.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("groups are numbered")
    }

    /// The number of its own node, `/dev/vfio/devices/vfioNUMBER`, while `vfio-pci` has it.
    pub fn vfio_node(&self) -> Option<u32> {
        let mut nodes = fs::read_dir(self.path("vfio-dev")).into_iter().flatten().flatten();
        let name = nodes.next().map(|node| node.file_name().to_string_lossy().into_owned());
        let number = name.and_then(|name| name.strip_prefix("vfio")?.parse().ok());
        if number.is_none() {
            skip("this kernel gives VFIO devices no nodes of their own (CONFIG_VFIO_DEVICE_CDEV, Linux 6.6)");
        }
        number
    }

    /// The disk behind an NVMe controller, once its driver has found it.
    ///
    /// # Panics
    /// When the driver does not find it in time.
    pub fn disk(&self) -> PathBuf {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(disk) = self.find_disk() {
                return disk;
            }
            assert!(Instant::now() < deadline, "the host's driver does not find the disk of {}", self.0);
            std::thread::yield_now();
        }
    }

    /// Whether the host has the disk behind an NVMe controller.
    pub fn has_disk(&self) -> bool {
        self.find_disk().is_some()
    }

    fn find_disk(&self) -> Option<PathBuf> {
        let controller = fs::read_dir(self.path("nvme")).ok()?.next()?.ok()?.path();
        let entries = fs::read_dir(controller).ok()?.flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // `nvme0n1` is a disk; what begins with `ng` or `hwmon` is not.
        let disks = names.filter(|name| name.strip_prefix("nvme").is_some_and(|rest| rest.contains('n')));
        // The node comes before the disk: until then it cannot be opened.
        disks.map(|name| Path::new("/dev").join(name)).find(|disk| File::open(disk).is_ok())
    }

    /// Takes it from its driver and gives it to `vfio-pci`, until the returned value is dropped.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn lend(&self) -> Lent {
        self.rebind("vfio-pci").expect("vfio-pci is loaded and takes the device");
        Lent(self.clone())
    }

    /// The size of its first window, by which it can be told from others of its kind (the kernel's
    /// Documentation/PCI/sysfs-pci.rst, `resource`).
    ///
    /// # Panics
    /// When sysfs does not tell.
    pub fn first_window(&self) -> u64 {
        let windows = fs::read_to_string(self.path("resource")).expect("each function has its windows");
        let mut numbers = windows.split_whitespace().map(|text| {
            u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("they are hexadecimal")
        });
        let (start, end) = (numbers.next(), numbers.next());
        end.expect("a last byte") - start.expect("a first byte") + 1
    }

    fn is_display(&self) -> bool {
        fs::read_to_string(self.path("class")).is_ok_and(|class| class.starts_with("0x03"))
    }

    fn is_nvme(&self) -> bool {
        fs::read_to_string(self.path("class")).is_ok_and(|class| class.trim() == NVME)
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(DEVICES).join(&self.0).join(name)
    }

    /// Binds another driver: the one named, or with a line break any that fits (the kernel's
    /// Documentation/ABI/testing/sysfs-bus-pci, `driver_override`).
    fn rebind(&self, driver: &str) -> std::io::Result<()> {
        let bound = self.path("driver/unbind");
        if bound.exists() {
            fs::write(bound, &self.0)?;
        }
        fs::write(self.path("driver_override"), driver)?;
        fs::write("/sys/bus/pci/drivers_probe", &self.0)
    }
}

fn skip_device(what: &str) {
    skip(&format!("needs {what}; name one with `cargo xtask integration --vfio`, or use --host nested"));
}

/// A function that `vfio-pci` has. It goes back to its own driver when this is dropped.
#[derive(Debug)]
pub struct Lent(PciFunction);

impl Drop for Lent {
    fn drop(&mut self) {
        if let Err(error) = self.0.rebind("\n") {
            skip(&format!("giving {} back to its driver: {error}", self.0.address()));
        }
    }
}
