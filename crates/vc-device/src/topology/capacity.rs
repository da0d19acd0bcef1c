//! How many places a machine needs, known before it boots.

use serde::{Deserialize, Serialize};

use super::place::BRIDGE_SLOTS;
use super::{PortError, PortKind};
use crate::spec::{DeviceSpec, PmemFrontend};

/// What a machine has to plug devices into; fixed when it is launched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// PCIe root ports, at most 128.
    pub root_ports: u8,
    /// Downstream ports of a PCIe switch, at most 32; without any there is no switch.
    pub switch_ports: u8,
    /// Conventional PCI bridges with 30 slots each, at most 5. They need a firmware that gives them
    /// windows: SeaBIOS does, qboot does not.
    pub bridges: u8,
    /// Whether there is a virtio-scsi controller.
    pub scsi_controller: bool,
}

/// What a device is to be plugged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortWish {
    /// A disk: a root port or a unit of the SCSI controller, as the policy has it.
    Disk,
    /// A place of this kind.
    Port(PortKind),
    /// No place: memory, and what only the agent makes.
    Nothing,
}

/// How the capacity of a machine is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopologyPolicy {
    /// With more disks than this, all of them become units of one SCSI controller.
    pub most_disks_on_ports: u8,
    /// Root ports for devices that are not known yet, such as disks of later containers.
    pub spare_root_ports: u8,
}

impl Default for TopologyPolicy {
    /// Up to 8 disks on ports, which cost a boot nothing that can be measured, and 8 spare ports.
    fn default() -> Self {
        Self { most_disks_on_ports: 8, spare_root_ports: 8 }
    }
}

impl Capacity {
    /// What a machine for a pod with these devices needs.
    ///
    /// # Errors
    /// [`PortError::TooMany`] when no machine has that many places.
    pub fn for_pod(
        devices: impl IntoIterator<Item = PortWish>,
        policy: TopologyPolicy,
    ) -> Result<Self, PortError> {
        let (mut disks, mut counts) = (0_usize, [0_usize; 4]);
        for wish in devices {
            match wish {
                PortWish::Disk => disks += 1,
                PortWish::Port(kind) => counts[kind as usize] += 1,
                PortWish::Nothing => {}
            }
        }
        let [mut root_ports, switch_ports, bridge_slots, mut scsi_units] = counts;
        if disks > usize::from(policy.most_disks_on_ports) || scsi_units > 0 {
            scsi_units += disks;
        } else {
            root_ports += disks;
        }
        root_ports += usize::from(policy.spare_root_ports);
        Ok(Self {
            root_ports: checked(PortKind::RootPort, root_ports, 1)?,
            switch_ports: checked(PortKind::SwitchPort, switch_ports, 1)?,
            bridges: checked(PortKind::BridgePort, bridge_slots, usize::from(BRIDGE_SLOTS))?,
            scsi_controller: checked_units(scsi_units)?,
        })
    }

    /// Whether a disk has nowhere to go but to a root port.
    pub(super) fn is_ports_only(self) -> bool {
        self.bridges == 0 && !self.scsi_controller
    }

    /// How many places of this kind there are.
    pub fn places(self, kind: PortKind) -> u16 {
        match kind {
            PortKind::RootPort => u16::from(self.root_ports),
            PortKind::SwitchPort => u16::from(self.switch_ports),
            PortKind::BridgePort => u16::from(self.bridges) * u16::from(BRIDGE_SLOTS),
            PortKind::ScsiUnit if self.scsi_controller => PortKind::ScsiUnit.most(),
            PortKind::ScsiUnit => 0,
        }
    }
}

impl DeviceSpec {
    /// What it is to be plugged into. A VFIO device that is planned for a switch or a bridge has its
    /// port from the plan instead.
    pub fn port_wish(&self) -> PortWish {
        match self {
            Self::Block(_) | Self::Partitioned(_) => PortWish::Disk,
            Self::Pmem(spec) if spec.frontend() == PmemFrontend::Nvdimm => PortWish::Nothing,
            // AP queues are on a bus of their own.
            Self::Character(_) | Self::VfioAp(_) => PortWish::Nothing,
            Self::Pmem(_)
            | Self::VfioPci(_)
            | Self::VhostUserBlk(_)
            | Self::VhostUserFs(_)
            | Self::Vsock(_)
            | Self::Network(_)
            | Self::SerialPort(_) => PortWish::Port(PortKind::RootPort),
        }
    }
}

/// `asked` places as a number of things with `each` places.
fn checked(kind: PortKind, asked: usize, each: usize) -> Result<u8, PortError> {
    let fits = asked <= usize::from(kind.most());
    let things = u8::try_from(asked.div_ceil(each)).ok();
    things.filter(|_| fits).ok_or(PortError::TooMany { kind, asked })
}

fn checked_units(asked: usize) -> Result<bool, PortError> {
    let kind = PortKind::ScsiUnit;
    if asked > usize::from(kind.most()) { Err(PortError::TooMany { kind, asked }) } else { Ok(asked > 0) }
}
