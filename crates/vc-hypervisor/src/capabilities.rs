//! What a hypervisor can do.

use std::fmt;

/// What a machine's hypervisor can do; asked once for each machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The hypervisor and its release, for people: `QEMU 7.2`.
    pub version: String,
    /// Whether the processor runs the guest's instructions; otherwise they are emulated.
    pub hardware: bool,
    /// Whether it has virtio-mem devices.
    pub virtio_mem: bool,
    /// Whether it has virtio-pmem devices.
    pub virtio_pmem: bool,
    /// Whether it can pass a host device through IOMMUFD, besides VFIO groups.
    pub iommufd: bool,
    /// Whether a vCPU can be taken away from a running machine without harm.
    pub vcpu_unplug: bool,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {}", self.version, if self.hardware { "KVM" } else { "emulation" })
    }
}
