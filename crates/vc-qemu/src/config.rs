//! What only this adapter can be told.

use std::path::PathBuf;

use vc_device::Capacity;
use vc_hypervisor::{MachineSpec, MemoryGrowth};

/// Where QEMU and its helper are, as whom they run, and how they are bound to this process.
#[derive(Clone, Debug)]
pub struct QemuConfig {
    /// The QEMU program, found through `PATH` when it has no slash.
    pub program: PathBuf,
    /// The program that serves vsock where the host has no `/dev/vhost-vsock`.
    pub vsock_program: PathBuf,
    /// Whether the kernel kills the machine when this process dies, however it dies; but for one whose spec
    /// says that it outlives its owner.
    ///
    /// The kernel does so already when the thread ends that polled the launch (prctl(2), `PR_SET_PDEATHSIG`). So
    /// launch on a thread that lasts as long as the machine: the main thread, or a worker of the tokio runtime;
    /// not within `spawn_blocking`, nor on a thread of one's own that blocks on the launch and ends.
    pub die_with_parent: bool,
    /// Which machine QEMU emulates.
    pub machine_type: MachineType,
    /// As whom QEMU and its helper run; only root may choose. The guest image must be readable by that
    /// user, everything else they are handed open.
    pub user: Option<User>,
}

impl Default for QemuConfig {
    fn default() -> Self {
        Self {
            program: "qemu-system-x86_64".into(),
            vsock_program: "vhost-device-vsock".into(),
            die_with_parent: true,
            machine_type: MachineType::Q35,
            user: None,
        }
    }
}

/// A user without rights of its own. It is in no other group, but for the one that may open `/dev/kvm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

/// Which machine QEMU emulates. Source: qemu-system(1), `-machine`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MachineType {
    /// PCI Express, whose root ports take hot-plugged devices.
    #[default]
    Q35,
    /// Conventional PCI: nothing that needs PCI Express, so no root port.
    I440fx,
    /// No PCI at all.
    Microvm,
}

impl MachineType {
    /// Its name on QEMU's command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Q35 => "q35",
            Self::I440fx => "pc",
            Self::Microvm => "microvm",
        }
    }

    /// The name of its root bus.
    pub(crate) fn root_bus(self) -> &'static str {
        match self {
            Self::Q35 => "pcie.0",
            Self::I440fx | Self::Microvm => "pci.0",
        }
    }

    /// What there is to plug devices into. The SCSI controller costs nothing until it is used.
    pub(crate) fn capacity(self, spec: &MachineSpec) -> Capacity {
        let scsi_controller = self == Self::Q35;
        Capacity {
            root_ports: spec.hotplug_ports,
            bridges: spec.pci_bridges,
            scsi_controller,
            ..Capacity::default()
        }
    }

    /// Why it cannot be what `spec` asks for, if it cannot.
    pub(crate) fn objection(self, spec: &MachineSpec) -> Option<&'static str> {
        match self {
            Self::Q35 => None,
            Self::I440fx if spec.hotplug_ports > 0 || spec.pci_bridges > 0 => Some(
                "devices are plugged into ports of PCI Express, and its bus is conventional PCI; use q35, or ask for no ports",
            ),
            Self::I440fx if matches!(spec.memory_growth, MemoryGrowth::VirtioMem { .. }) => Some(
                "the virtio-mem device is on PCI Express, and its bus is conventional PCI; use q35, or DIMMs",
            ),
            Self::I440fx => None,
            Self::Microvm => Some("the agent's vsock device needs PCI, and it has none; use q35"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vc_types::{HostPath, MiB};

    #[test]
    fn a_machine_without_what_is_needed_is_refused_with_the_reason() {
        let path = HostPath::new("/x").unwrap();
        let mut spec = MachineSpec::new("m".parse().unwrap(), path.clone(), path.clone(), path);
        assert_eq!(MachineType::Q35.objection(&spec), None);
        let why = |machine: MachineType, spec: &MachineSpec| machine.objection(spec).unwrap();
        assert!(why(MachineType::I440fx, &spec).contains("PCI Express"));
        assert!(why(MachineType::Microvm, &spec).contains("PCI"));
        spec.hotplug_ports = 0;
        assert_eq!(MachineType::I440fx.objection(&spec), None);
        assert!(why(MachineType::Microvm, &spec).contains("PCI"));
        spec.memory_growth = MemoryGrowth::VirtioMem { most: MiB::new(512).unwrap() };
        assert!(why(MachineType::I440fx, &spec).contains("virtio-mem"));
    }
}
