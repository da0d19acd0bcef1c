//! The places that a machine has for devices, and how hypervisor and guest know them.

use std::fmt;

use serde::{Deserialize, Serialize};
use vc_types::{PciPath, PciSlot};

use super::{RootPort, root_ports};
use crate::vfio::Port;

/// The SCSI controller's device number on the root bus.
const SCSI_CONTROLLER: u8 = 3;
/// The device number, on the root bus, of the root port that the switch is behind.
const SWITCH: u8 = 4;
/// PCI bridges sit on the root bus from this device number on.
const FIRST_BRIDGE: u8 = 24;
/// The most PCI bridges.
pub(super) const MOST_BRIDGES: u8 = 5;
/// A bridge's slots 1 to 30 take devices: 0 is its hot-plug controller's, 31 stays unused.
pub(super) const BRIDGE_SLOTS: u8 = 30;
/// A switch has one downstream port for each device number of its bus.
const MOST_SWITCH_PORTS: u16 = 32;
/// 256 targets with 256 logical units each; virtio-scsi would have more units.
const MOST_SCSI_UNITS: u16 = u16::MAX;

/// A kind of place, in the order in which guests find devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortKind {
    /// A PCIe root port.
    RootPort,
    /// A downstream port of the machine's PCIe switch.
    SwitchPort,
    /// A slot of a conventional PCI bridge.
    BridgePort,
    /// A logical unit of the machine's virtio-scsi controller.
    ScsiUnit,
}

impl PortKind {
    /// All kinds, in their order.
    pub(super) const ALL: [Self; 4] = [Self::RootPort, Self::SwitchPort, Self::BridgePort, Self::ScsiUnit];

    /// The most places of this kind that a machine has.
    pub fn most(self) -> u16 {
        match self {
            Self::RootPort => u16::from(root_ports::MOST),
            Self::SwitchPort => MOST_SWITCH_PORTS,
            Self::BridgePort => u16::from(MOST_BRIDGES) * u16::from(BRIDGE_SLOTS),
            Self::ScsiUnit => MOST_SCSI_UNITS,
        }
    }
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RootPort => "root ports",
            Self::SwitchPort => "switch ports",
            Self::BridgePort => "bridge slots",
            Self::ScsiUnit => "SCSI units",
        })
    }
}

impl From<Port> for PortKind {
    fn from(port: Port) -> Self {
        match port {
            Port::RootPort => Self::RootPort,
            Port::SwitchPort => Self::SwitchPort,
            Port::BridgePort => Self::BridgePort,
        }
    }
}

/// A place for one device. Places are ordered as guests find them: root ports before switch ports
/// before bridges, each by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Behind a root port.
    RootPort(RootPort),
    /// Behind a port of the switch.
    SwitchPort(SwitchPort),
    /// In a slot of a bridge.
    BridgePort(BridgeSlot),
    /// A unit of the SCSI controller.
    ScsiUnit(ScsiUnit),
}

impl Place {
    pub(super) fn new(kind: PortKind, index: u16) -> Self {
        let small = || u8::try_from(index).expect("few of these");
        match kind {
            PortKind::RootPort => Self::RootPort(RootPort::new(index)),
            PortKind::SwitchPort => Self::SwitchPort(SwitchPort(small())),
            PortKind::BridgePort => Self::BridgePort(BridgeSlot(small())),
            PortKind::ScsiUnit => Self::ScsiUnit(ScsiUnit(index)),
        }
    }

    /// The place on the PCI buses where a guest finds a device; none of a layout other than this crate's.
    pub fn on_pci(location: &GuestLocation) -> Option<Self> {
        let kinds = [PortKind::RootPort, PortKind::SwitchPort, PortKind::BridgePort];
        let mut all = kinds.into_iter().flat_map(|kind| (0..kind.most()).map(move |n| Self::new(kind, n)));
        all.find(|place| place.guest_location() == *location)
    }

    /// What kind of place it is.
    pub fn kind(self) -> PortKind {
        match self {
            Self::RootPort(_) => PortKind::RootPort,
            Self::SwitchPort(_) => PortKind::SwitchPort,
            Self::BridgePort(_) => PortKind::BridgePort,
            Self::ScsiUnit(_) => PortKind::ScsiUnit,
        }
    }

    /// The name of the bus that the device is plugged into.
    pub fn bus(self) -> String {
        match self {
            Self::RootPort(port) => port.name(),
            Self::SwitchPort(port) => port.name(),
            Self::BridgePort(slot) => slot.bridge_name(),
            Self::ScsiUnit(_) => format!("{}.0", ScsiUnit::CONTROLLER),
        }
    }

    /// Where the guest finds the device.
    pub fn guest_location(self) -> GuestLocation {
        match self {
            Self::RootPort(port) => GuestLocation::Pci(port.device_path()),
            Self::SwitchPort(port) => GuestLocation::Pci(port.device_path()),
            Self::BridgePort(slot) => GuestLocation::Pci(slot.device_path()),
            Self::ScsiUnit(unit) => GuestLocation::Scsi {
                controller: PciPath::root(ScsiUnit::controller_slot()),
                target: unit.target(),
                unit: unit.unit(),
            },
        }
    }

    /// Its number among its kind, from 0.
    pub(super) fn index(self) -> u16 {
        match self {
            Self::RootPort(port) => u16::from(port.index()),
            Self::SwitchPort(SwitchPort(index)) | Self::BridgePort(BridgeSlot(index)) => u16::from(index),
            Self::ScsiUnit(ScsiUnit(index)) => index,
        }
    }
}

/// Where a guest finds a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum GuestLocation {
    /// On its PCI buses.
    Pci(PciPath),
    /// On the bus of a SCSI controller.
    Scsi {
        /// The controller.
        controller: PciPath,
        /// The target's id.
        target: u8,
        /// The logical unit's number.
        unit: u8,
    },
    /// In a memory slot: the guest's persistent memory of this number, `/dev/pmemN`.
    Memory(u32),
    /// On its AP bus, by the numbers of the queues. A machine has at most one device there (QEMU's
    /// `docs/system/s390x/vfio-ap.rst`).
    Ap,
}

impl fmt::Display for GuestLocation {
    /// As the agent protocol has it: `03/00` or `0:7`; AP queues have no name of that kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(path) => path.fmt(f),
            Self::Scsi { target, unit, .. } => write!(f, "{target}:{unit}"),
            Self::Memory(number) => write!(f, "/dev/pmem{number}"),
            Self::Ap => f.write_str("the AP bus"),
        }
    }
}

/// A downstream port of the machine's PCIe switch. The switch's upstream port is the device 00.0
/// behind a root port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SwitchPort(u8);

impl SwitchPort {
    /// The root port that the switch is behind.
    pub const ROOT_PORT: &str = "swrp";
    /// The name of the switch's upstream port, which is also that of the bus of its downstream ports.
    pub const UPSTREAM: &str = "swup";

    /// Where the root port of the switch sits on the root bus.
    pub fn root_port_slot() -> PciSlot {
        PciSlot::new(SWITCH, 0).expect("4.0 exists")
    }

    /// Its name, which is also that of the bus behind it.
    pub fn name(self) -> String {
        format!("swdp{}", self.0)
    }

    /// Its own place on the switch's bus.
    pub fn slot(self) -> PciSlot {
        PciSlot::new(self.0, 0).expect("at most 32 ports")
    }

    /// Its number, from 0.
    pub fn index(self) -> u8 {
        self.0
    }

    fn device_path(self) -> PciPath {
        let first = PciSlot::new(0, 0).expect("0.0 exists");
        PciPath::root(Self::root_port_slot()).child(first).child(self.slot()).child(first)
    }
}

/// A slot of a conventional PCI bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BridgeSlot(u8);

impl BridgeSlot {
    /// Which bridge, from 0.
    pub fn bridge(self) -> u8 {
        self.0 / BRIDGE_SLOTS
    }

    /// The name of the bridge `number`, which is also that of the bus behind it.
    pub fn name_of_bridge(number: u8) -> String {
        format!("bridge{number}")
    }

    /// Where bridge `number` sits on the root bus; `None` from the sixth on.
    pub fn slot_of_bridge(number: u8) -> Option<PciSlot> {
        let fits = number < MOST_BRIDGES;
        fits.then(|| PciSlot::new(FIRST_BRIDGE + number, 0).expect("24 to 28 exist"))
    }

    /// The slot behind the bridge, 1 to 30.
    pub fn slot(self) -> PciSlot {
        PciSlot::new(self.0 % BRIDGE_SLOTS + 1, 0).expect("1 to 30 exist")
    }

    fn bridge_name(self) -> String {
        Self::name_of_bridge(self.bridge())
    }

    fn device_path(self) -> PciPath {
        PciPath::root(Self::slot_of_bridge(self.bridge()).expect("at most 5 bridges")).child(self.slot())
    }
}

/// A logical unit of the machine's SCSI controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScsiUnit(u16);

impl ScsiUnit {
    /// The name of the controller; its bus is the controller's name and `.0`.
    pub const CONTROLLER: &str = "scsi0";

    /// Where the controller sits on the root bus.
    pub fn controller_slot() -> PciSlot {
        PciSlot::new(SCSI_CONTROLLER, 0).expect("3.0 exists")
    }

    /// The target's id.
    pub fn target(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// The logical unit's number.
    pub fn unit(self) -> u8 {
        self.0.to_be_bytes()[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_by_what_the_guest_knows_it_as() {
        for place in [(PortKind::RootPort, 17), (PortKind::SwitchPort, 31), (PortKind::BridgePort, 149)]
            .map(|(kind, n)| Place::new(kind, n))
        {
            assert_eq!(Place::on_pci(&place.guest_location()), Some(place));
        }
        assert_eq!(Place::on_pci(&GuestLocation::Pci("02/00".parse().unwrap())), None);
        assert_eq!(Place::on_pci(&Place::new(PortKind::ScsiUnit, 0).guest_location()), None);
    }
}
