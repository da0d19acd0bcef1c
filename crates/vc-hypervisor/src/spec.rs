//! What a machine is to be.

use std::fmt;
use std::num::NonZeroU8;
use std::str::FromStr;

use vc_types::{HostPath, MiB, SandboxId};

/// A machine that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSpec {
    /// Whose machine it is.
    pub id: SandboxId,
    /// The number of vCPUs.
    pub vcpus: NonZeroU8,
    /// The memory.
    pub memory: MiB,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
    /// The guest's kernel.
    pub kernel: HostPath,
    /// The guest's initial RAM disk, whose `/init` is the agent.
    pub initrd: HostPath,
    /// Appended to the kernel's command line.
    pub kernel_params: Vec<String>,
    /// How many devices that need a PCI Express port can be plugged at one time.
    pub hotplug_ports: u8,
    /// Conventional PCI bridges, 30 disks each, for guests that know no SCSI. They cost a slower firmware.
    pub pci_bridges: u8,
    /// How much persistent memory can be plugged.
    pub pmem_room: Option<MiB>,
    /// An existing, empty directory for the machine's sockets, which nobody else may enter.
    pub runtime_dir: HostPath,
    /// How many vCPUs it may grow to; fewer than `vcpus` count as `vcpus`.
    pub max_vcpus: NonZeroU8,
    /// How its memory may grow.
    pub memory_growth: MemoryGrowth,
    /// Whether it runs on when the process that launched it dies, so that another one can take it over
    /// ([`Hypervisor::reattach`](crate::Hypervisor::reattach)).
    pub outlives_owner: bool,
    /// Whether its vCPUs stand still until [`Machine::resume`](crate::Machine::resume). What is plugged before that is
    /// there when the guest starts, as if the machine had been built with it (cold plug).
    pub starts_paused: bool,
}

impl MachineSpec {
    /// A small machine: one vCPU, 256 MiB, eight ports, no growth. Every field may be changed.
    pub fn new(id: SandboxId, kernel: HostPath, initrd: HostPath, runtime_dir: HostPath) -> Self {
        Self {
            id,
            vcpus: NonZeroU8::MIN,
            memory: MiB::new(256).expect("not zero"),
            accelerator: Accelerator::Auto,
            kernel,
            initrd,
            kernel_params: Vec::new(),
            hotplug_ports: 8,
            pci_bridges: 0,
            pmem_room: None,
            runtime_dir,
            max_vcpus: NonZeroU8::MIN,
            memory_growth: MemoryGrowth::None,
            outlives_owner: false,
            starts_paused: false,
        }
    }
}

/// How the memory of a running machine may grow, and shrink again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryGrowth {
    /// Not at all.
    #[default]
    None,
    /// By DIMMs of whole memory blocks, each plugged and unplugged as one.
    Dimms {
        /// The memory it may grow to, that of the start included.
        most: MiB,
    },
    /// By one virtio-mem device, whose size the guest follows in small steps.
    VirtioMem {
        /// The memory it may grow to, that of the start included.
        most: MiB,
    },
}

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accelerator {
    /// KVM if `/dev/kvm` opens and the CPU offers hardware virtualization, else TCG.
    #[default]
    Auto,
    /// The processor, through `/dev/kvm`.
    Kvm,
    /// Emulation.
    Tcg,
}

/// Not an accelerator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no accelerator; choose auto, kvm or tcg")]
pub struct InvalidAccelerator(String);

impl FromStr for Accelerator {
    type Err = InvalidAccelerator;

    fn from_str(text: &str) -> Result<Self, InvalidAccelerator> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => Err(InvalidAccelerator(text.to_owned())),
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}
