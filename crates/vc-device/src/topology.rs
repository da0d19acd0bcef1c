//! What a machine has to plug devices into, and what is plugged where.
//!
//! The root bus of a machine is laid out once (see the table in `README.md`); addresses of ports on it
//! are what a guest knows them by, since firmware numbers the buses behind them as it likes.

mod capacity;
mod place;
mod record;
mod root_ports;
mod slots;

use serde::{Deserialize, Serialize};
use vc_types::DeviceId;

pub use capacity::{Capacity, PortWish, TopologyPolicy};
pub use place::{BridgeSlot, GuestLocation, Place, PortKind, ScsiUnit, SwitchPort};
pub use record::InvalidTopology;
pub use root_ports::{RootPort, RootPorts};
pub use slots::PortError;

use record::TopologyRecord;
use slots::Slots;

/// Which device of one machine is plugged where.
///
/// A table of our own, since QEMU accepts a second device on a full port without a word and the guest
/// never sees it. The lowest free place is taken first; a place is free again when
/// [`Topology::give_back`] says that the unplug is complete, and not before.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use vc_device::{Capacity, PortWish, Topology, TopologyPolicy};
///
/// let pod = [PortWish::Disk, PortWish::Disk, PortWish::Port(vc_device::PortKind::SwitchPort)];
/// let policy = TopologyPolicy { spare_root_ports: 4, ..TopologyPolicy::default() };
/// let mut topology = Topology::new(Capacity::for_pod(pod, policy)?)?;
/// assert_eq!(topology.capacity().root_ports, 6);
///
/// let disk = "disk0".parse()?;
/// let place = topology.take(&disk, topology.port_for_disks())?;
/// assert_eq!((place.bus().as_str(), place.guest_location().to_string().as_str()), ("rp0", "08/00"));
/// topology.give_back(&disk)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "TopologyRecord", try_from = "TopologyRecord")]
pub struct Topology {
    capacity: Capacity,
    root_ports: RootPorts,
    switch_ports: Slots,
    bridge_slots: Slots,
    scsi_units: Slots,
}

impl Topology {
    /// A machine with this capacity and nothing plugged.
    ///
    /// # Errors
    /// [`PortError::TooMany`] when no machine has that many.
    pub fn new(capacity: Capacity) -> Result<Self, PortError> {
        let slots = |kind| Slots::new(kind, capacity.places(kind));
        Ok(Self {
            capacity,
            root_ports: RootPorts::new(capacity.root_ports)?,
            switch_ports: slots(PortKind::SwitchPort)?,
            bridge_slots: slots(PortKind::BridgePort)?,
            scsi_units: slots(PortKind::ScsiUnit)?,
        })
    }

    /// What the machine was launched with.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Where disks go: to the SCSI controller if there is one, else to root ports.
    pub fn port_for_disks(&self) -> PortKind {
        if self.capacity.scsi_controller { PortKind::ScsiUnit } else { PortKind::RootPort }
    }

    /// Takes the lowest free place of this kind for `device`.
    ///
    /// # Errors
    /// [`PortError::AlreadyPlugged`] when it has a place of any kind, [`PortError::NoneFree`] when all
    /// are taken. Nothing has changed then.
    pub fn take(&mut self, device: &DeviceId, kind: PortKind) -> Result<Place, PortError> {
        if self.find(device).is_some() {
            return Err(PortError::AlreadyPlugged(device.clone()));
        }
        self.slots_mut(kind).take(device).map(|index| Place::new(kind, index))
    }

    /// The place that holds `device`.
    pub fn find(&self, device: &DeviceId) -> Option<Place> {
        PortKind::ALL.into_iter().find_map(|kind| Some(Place::new(kind, self.slots(kind).find(device)?)))
    }

    /// Frees the place of `device`. Only once the unplug is complete: until then the guest still has it,
    /// and a refused or failed unplug leaves it where it is.
    ///
    /// # Errors
    /// [`PortError::NotPlugged`] when no place holds it.
    pub fn give_back(&mut self, device: &DeviceId) -> Result<(), PortError> {
        let place = self.find(device).ok_or_else(|| PortError::NotPlugged(device.clone()))?;
        self.slots_mut(place.kind()).give_back(device)
    }

    /// What is plugged, by place: root ports before switch ports before bridges before SCSI units, each
    /// in numeric order.
    pub fn plugged(&self) -> Vec<(Place, &DeviceId)> {
        let held =
            |kind| self.slots(kind).held().map(move |(index, device)| (Place::new(kind, index), device));
        PortKind::ALL.into_iter().flat_map(held).collect()
    }

    fn slots(&self, kind: PortKind) -> &Slots {
        match kind {
            PortKind::RootPort => self.root_ports.slots(),
            PortKind::SwitchPort => &self.switch_ports,
            PortKind::BridgePort => &self.bridge_slots,
            PortKind::ScsiUnit => &self.scsi_units,
        }
    }

    fn slots_mut(&mut self, kind: PortKind) -> &mut Slots {
        match kind {
            PortKind::RootPort => self.root_ports.slots_mut(),
            PortKind::SwitchPort => &mut self.switch_ports,
            PortKind::BridgePort => &mut self.bridge_slots,
            PortKind::ScsiUnit => &mut self.scsi_units,
        }
    }
}
