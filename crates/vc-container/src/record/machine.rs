//! The machine as it was asked for.

use std::num::{NonZeroU8, NonZeroU32};

use serde::{Deserialize, Serialize};
use vc_hypervisor::{Accelerator, MachineSpec, MemoryGrowth};
use vc_types::{HostPath, MiB, SandboxId};

/// A [`MachineSpec`], written down. Sizes are in MiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MachineRecord {
    id: SandboxId,
    vcpus: NonZeroU8,
    max_vcpus: NonZeroU8,
    memory: NonZeroU32,
    memory_growth: Growth,
    accelerator: Runs,
    kernel: HostPath,
    initrd: HostPath,
    kernel_params: Vec<String>,
    hotplug_ports: u8,
    pci_bridges: u8,
    pmem_room: Option<NonZeroU32>,
    runtime_dir: HostPath,
    outlives_owner: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Growth {
    None,
    Dimms(NonZeroU32),
    VirtioMem(NonZeroU32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Runs {
    Auto,
    Kvm,
    Tcg,
}

impl From<&MachineSpec> for MachineRecord {
    fn from(spec: &MachineSpec) -> Self {
        Self {
            id: spec.id.clone(),
            vcpus: spec.vcpus,
            max_vcpus: spec.max_vcpus,
            memory: number(spec.memory),
            memory_growth: match spec.memory_growth {
                MemoryGrowth::None => Growth::None,
                MemoryGrowth::Dimms { most } => Growth::Dimms(number(most)),
                MemoryGrowth::VirtioMem { most } => Growth::VirtioMem(number(most)),
            },
            accelerator: match spec.accelerator {
                Accelerator::Auto => Runs::Auto,
                Accelerator::Kvm => Runs::Kvm,
                Accelerator::Tcg => Runs::Tcg,
            },
            kernel: spec.kernel.clone(),
            initrd: spec.initrd.clone(),
            kernel_params: spec.kernel_params.clone(),
            hotplug_ports: spec.hotplug_ports,
            pci_bridges: spec.pci_bridges,
            pmem_room: spec.pmem_room.map(number),
            runtime_dir: spec.runtime_dir.clone(),
            outlives_owner: spec.outlives_owner,
        }
    }
}

impl MachineRecord {
    /// The machine that was asked for.
    pub(crate) fn spec(&self) -> MachineSpec {
        let new = MachineSpec::new(
            self.id.clone(),
            self.kernel.clone(),
            self.initrd.clone(),
            self.runtime_dir.clone(),
        );
        MachineSpec {
            vcpus: self.vcpus,
            max_vcpus: self.max_vcpus,
            memory: size(self.memory),
            memory_growth: match self.memory_growth {
                Growth::None => MemoryGrowth::None,
                Growth::Dimms(most) => MemoryGrowth::Dimms { most: size(most) },
                Growth::VirtioMem(most) => MemoryGrowth::VirtioMem { most: size(most) },
            },
            accelerator: match self.accelerator {
                Runs::Auto => Accelerator::Auto,
                Runs::Kvm => Accelerator::Kvm,
                Runs::Tcg => Accelerator::Tcg,
            },
            kernel_params: self.kernel_params.clone(),
            hotplug_ports: self.hotplug_ports,
            pci_bridges: self.pci_bridges,
            pmem_room: self.pmem_room.map(size),
            outlives_owner: self.outlives_owner,
            ..new
        }
    }
}

fn number(size: MiB) -> NonZeroU32 {
    NonZeroU32::new(size.get()).expect("no size is 0")
}

fn size(number: NonZeroU32) -> MiB {
    MiB::new(number.get()).expect("not 0")
}
