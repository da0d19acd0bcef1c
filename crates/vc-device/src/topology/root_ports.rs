//! The PCIe root ports of a machine: a fixed number, one device each.

use vc_types::{DeviceId, PciPath, PciSlot};

use super::{PortError, PortKind, slots::Slots};

/// Root ports sit on the root bus from this device number on, eight (one per function) to each.
const FIRST_DEVICE: u8 = 8;

/// Device numbers 8 to 23 of the root bus are for root ports.
pub(super) const MOST: u8 = 16 * 8;

/// One root port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootPort(u8);

impl RootPort {
    pub(super) fn new(index: u16) -> Self {
        Self(u8::try_from(index).ok().filter(|index| *index < MOST).expect("at most 128 root ports"))
    }

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

/// Which root port holds which device, for a machine that has nothing but root ports.
///
/// [`Topology`](crate::Topology) knows the other kinds of places too; both use the same allocator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootPorts(Slots);

impl RootPorts {
    /// `count` empty ports.
    ///
    /// # Errors
    /// [`PortError::TooMany`] above 128.
    pub fn new(count: u8) -> Result<Self, PortError> {
        Slots::new(PortKind::RootPort, u16::from(count)).map(Self)
    }

    /// All ports, taken or not.
    pub fn all(&self) -> impl Iterator<Item = RootPort> {
        (0..self.0.count()).map(RootPort::new)
    }

    /// Takes the lowest free port for `device`.
    ///
    /// # Errors
    /// [`PortError::AlreadyPlugged`] when it has one, [`PortError::NoneFree`] when there is none.
    pub fn take(&mut self, device: &DeviceId) -> Result<RootPort, PortError> {
        self.0.take(device).map(RootPort::new)
    }

    /// The port that holds `device`.
    pub fn find(&self, device: &DeviceId) -> Option<RootPort> {
        self.0.find(device).map(RootPort::new)
    }

    /// Frees the port of `device`. Only once the unplug is complete: until then the guest still has it.
    ///
    /// # Errors
    /// [`PortError::NotPlugged`] when no port holds it.
    pub fn give_back(&mut self, device: &DeviceId) -> Result<(), PortError> {
        self.0.give_back(device)
    }

    /// The devices that hold a port, lowest port first.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.0.held().map(|(_, device)| device)
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.0
    }

    pub(super) fn slots_mut(&mut self) -> &mut Slots {
        &mut self.0
    }
}
