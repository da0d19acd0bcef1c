//! The PCIe root ports of a machine: a fixed number, one device each.

use std::collections::BTreeMap;

use vc_types::{DeviceId, PciPath, PciSlot};

/// Root ports sit on the root bus from this device number on, eight (one per function) to each.
const FIRST_DEVICE: u8 = 8;

/// Device numbers 8 to 23 of the root bus are for root ports; the rest stays free for devices that
/// are there from the start.
const MOST: u8 = 16 * 8;

/// Why a port could not be taken or given back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// More root ports than a machine can have.
    #[error("{0} root ports asked for, a machine has at most {MOST}")]
    TooMany(u8),
    /// All ports are taken.
    #[error("all {0} root ports are taken")]
    NoneFree(u8),
    /// The device already has a port.
    #[error("device {0} is already plugged")]
    AlreadyPlugged(DeviceId),
    /// No port holds the device.
    #[error("device {0} is not plugged")]
    NotPlugged(DeviceId),
}

/// One root port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootPort(u8);

impl RootPort {
    /// Its name, which is also that of the bus behind it.
    pub fn name(self) -> String {
        format!("rp{}", self.0)
    }

    /// Its own place on the root bus.
    pub fn slot(self) -> PciSlot {
        PciSlot::new(FIRST_DEVICE + self.0 / 8, self.0 % 8).expect("at most 16 devices from 8 on")
    }

    /// The guest's path to the device in this port.
    pub fn device_path(self) -> PciPath {
        PciPath::root(self.slot()).child(PciSlot::new(0, 0).expect("0.0 exists"))
    }

    /// Its number, from 0.
    pub fn index(self) -> u8 {
        self.0
    }
}

/// Which root port holds which device.
///
/// A table of our own, since QEMU accepts a second device on a full port without a word and the
/// guest never sees it. The lowest free port is taken first, so that a freed one is used again.
#[derive(Clone, Debug)]
pub struct RootPorts {
    count: u8,
    held: BTreeMap<u8, DeviceId>,
}

impl RootPorts {
    /// `count` empty ports.
    ///
    /// # Errors
    /// [`PortError::TooMany`] above 128.
    pub fn new(count: u8) -> Result<Self, PortError> {
        if count > MOST {
            return Err(PortError::TooMany(count));
        }
        Ok(Self { count, held: BTreeMap::new() })
    }

    /// All ports, taken or not.
    pub fn all(&self) -> impl Iterator<Item = RootPort> {
        (0..self.count).map(RootPort)
    }

    /// Takes the lowest free port for `device`.
    ///
    /// # Errors
    /// [`PortError::AlreadyPlugged`] when it has one, [`PortError::NoneFree`] when there is none.
    pub fn take(&mut self, device: &DeviceId) -> Result<RootPort, PortError> {
        if self.find(device).is_some() {
            return Err(PortError::AlreadyPlugged(device.clone()));
        }
        let free = (0..self.count).find(|port| !self.held.contains_key(port));
        let port = free.ok_or(PortError::NoneFree(self.count))?;
        self.held.insert(port, device.clone());
        Ok(RootPort(port))
    }

    /// The port that holds `device`.
    pub fn find(&self, device: &DeviceId) -> Option<RootPort> {
        self.held.iter().find(|(_, held)| *held == device).map(|(port, _)| RootPort(*port))
    }

    /// Frees the port of `device`. Only once the unplug is complete: until then the guest still has it.
    ///
    /// # Errors
    /// [`PortError::NotPlugged`] when no port holds it.
    pub fn give_back(&mut self, device: &DeviceId) -> Result<(), PortError> {
        let port = self.find(device).ok_or_else(|| PortError::NotPlugged(device.clone()))?;
        self.held.remove(&port.0);
        Ok(())
    }

    /// The devices that hold a port, lowest port first.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.held.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn device(n: u8) -> DeviceId {
        format!("d{n}").parse().unwrap()
    }

    #[test]
    fn r3_a_freed_port_is_the_next_one_taken() {
        let mut ports = RootPorts::new(4).unwrap();
        for n in 0..4 {
            assert_eq!(ports.take(&device(n)).unwrap().index(), n);
        }
        assert_eq!(ports.take(&device(9)), Err(PortError::NoneFree(4)));
        ports.give_back(&device(1)).unwrap();
        assert_eq!(ports.take(&device(9)).unwrap().index(), 1);
        assert_eq!(ports.take(&device(9)), Err(PortError::AlreadyPlugged(device(9))));
        assert_eq!(ports.give_back(&device(1)), Err(PortError::NotPlugged(device(1))));
    }

    #[test]
    fn every_port_has_a_place_of_its_own() {
        let ports = RootPorts::new(MOST).unwrap();
        let places: BTreeSet<_> = ports.all().map(RootPort::slot).collect();
        assert_eq!(places.len(), usize::from(MOST));
        assert!(places.iter().all(|place| (8..24).contains(&place.device())));
        assert_eq!(RootPorts::new(MOST + 1).err(), Some(PortError::TooMany(MOST + 1)));
        assert_eq!(RootPort(9).device_path().to_string(), "09.1/00");
    }

    proptest! {
        #[test]
        fn no_port_is_held_twice(steps in prop::collection::vec((any::<bool>(), 0u8..12), 0..200)) {
            let mut ports = RootPorts::new(8).unwrap();
            let mut model = BTreeSet::new();
            for (plug, n) in steps {
                if plug {
                    let expected = !model.contains(&n) && model.len() < 8;
                    prop_assert_eq!(ports.take(&device(n)).is_ok(), expected);
                    if expected { model.insert(n); }
                } else {
                    prop_assert_eq!(ports.give_back(&device(n)).is_ok(), model.remove(&n));
                }
                let held: BTreeSet<_> = model.iter().filter_map(|n| ports.find(&device(*n))).collect();
                prop_assert_eq!(held.len(), model.len());
                prop_assert_eq!(ports.devices().count(), model.len());
            }
        }
    }
}
