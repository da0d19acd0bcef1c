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

/// How many root ports disks leave to devices that can go nowhere else.
const PORTS_KEPT_FROM_DISKS: u16 = 2;

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
/// let place = topology.take_for_disk(&disk)?;
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

    /// Takes a place for a disk: a root port while more than two are free, which are left to devices that
    /// can go nowhere else, then a slot of a bridge, then a unit of the SCSI controller. So a machine runs
    /// out of ports, but not of room for disks.
    ///
    /// # Errors
    /// As of [`Topology::take`]; [`PortError::NoneFree`] when there is no place of any kind.
    pub fn take_for_disk(&mut self, device: &DeviceId) -> Result<Place, PortError> {
        let free = self.root_ports.slots().count() - self.root_ports.slots().taken();
        let on_port = free > PORTS_KEPT_FROM_DISKS || self.capacity.is_ports_only();
        let kinds = [PortKind::RootPort, PortKind::BridgePort, PortKind::ScsiUnit];
        let mut full =
            PortError::NoneFree { kind: PortKind::RootPort, count: self.root_ports.slots().count() };
        for kind in kinds.into_iter().filter(|kind| on_port || *kind != PortKind::RootPort) {
            match self.take(device, kind) {
                // Kinds that the machine has not at all are not worth a word.
                Err(error @ PortError::NoneFree { count: 1.., .. }) => full = error,
                Err(PortError::NoneFree { .. }) => {}
                taken => return taken,
            }
        }
        Err(full)
    }

    /// Takes the place that `device` is in already, as in a machine that is taken over: the one for which `is_it` holds.
    /// `None` when there is none, or another device has it, or this one has a place; nothing has changed then.
    pub fn take_known(&mut self, device: &DeviceId, is_it: impl Fn(Place) -> bool) -> Option<Place> {
        if self.find(device).is_some() {
            return None;
        }
        let all = |kind| (0..self.slots(kind).count()).map(move |index| (kind, index));
        let mut places = PortKind::ALL.into_iter().flat_map(all);
        let (kind, index) = places.find(|(kind, index)| is_it(Place::new(*kind, *index)))?;
        self.slots_mut(kind).put(index, device.clone()).then(|| Place::new(kind, index))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(root_ports: u8, bridges: u8, scsi_controller: bool) -> Topology {
        Topology::new(Capacity { root_ports, bridges, scsi_controller, ..Capacity::default() }).unwrap()
    }

    fn take(topology: &mut Topology, count: usize) -> Vec<String> {
        let first = topology.plugged().len();
        let disk = |n: usize| format!("d{n}").parse().unwrap();
        let place = |n| topology.take_for_disk(&disk(n)).unwrap().guest_location().to_string();
        (first..first + count).map(place).collect()
    }

    #[test]
    fn disks_leave_ports_to_others_and_never_run_out_of_room() {
        let mut with_units = topology(4, 0, true);
        assert_eq!(take(&mut with_units, 5), ["08/00", "08.1/00", "0:0", "0:1", "0:2"]);
        let other = "eth0".parse().unwrap();
        assert!(with_units.take(&other, PortKind::RootPort).is_ok());
        assert_eq!(take(&mut topology(0, 1, true), 31)[29..], ["18/1e", "0:0"]);
        assert_eq!(take(&mut topology(0, 0, true), 300)[299], "1:43");
    }

    #[test]
    fn without_other_places_disks_take_every_port() {
        let mut ports_only = topology(3, 0, false);
        assert_eq!(take(&mut ports_only, 3), ["08/00", "08.1/00", "08.2/00"]);
        let more = ports_only.take_for_disk(&"more".parse().unwrap());
        assert_eq!(more, Err(PortError::NoneFree { kind: PortKind::RootPort, count: 3 }));
        let known = ports_only.take_for_disk(&"d1".parse().unwrap());
        assert_eq!(known, Err(PortError::AlreadyPlugged("d1".parse().unwrap())));
    }

    #[test]
    fn a_device_is_put_where_it_is_and_nowhere_else() {
        let mut topology = topology(2, 1, true);
        let (there, other): (DeviceId, DeviceId) = ("there".parse().unwrap(), "other".parse().unwrap());
        let unit = topology.take_known(&there, |place| place.bus() == "scsi0.0").unwrap();
        assert_eq!((unit.kind(), topology.find(&there)), (PortKind::ScsiUnit, Some(unit)));
        assert_eq!(topology.take_known(&there, |_| true), None, "it has a place");
        assert_eq!(topology.take_known(&other, |place| place == unit), None, "another device has it");
        assert_eq!(topology.take_known(&other, |_| false), None, "there is no such place");
        assert_eq!(topology.plugged(), [(unit, &there)]);
    }

    #[test]
    fn runtime1941_a_device_too_many_changes_nothing() {
        let mut topology = topology(1, 0, false);
        topology.take_for_disk(&"d0".parse().unwrap()).unwrap();
        let before = topology.clone();
        for _ in 0..2 {
            assert!(topology.take_for_disk(&"d1".parse().unwrap()).is_err());
            assert_eq!(topology, before);
        }
    }
}
