//! The one allocator of places: a fixed number, one device each, the lowest free one first.

use std::collections::BTreeMap;

use vc_types::DeviceId;

use super::PortKind;

/// Why a place could not be taken or given back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// More places than a machine can have.
    #[error("{asked} {kind} asked for, a machine has at most {}", .kind.most())]
    TooMany {
        /// Of which kind.
        kind: PortKind,
        /// How many.
        asked: usize,
    },
    /// All places are taken.
    #[error("all {count} {kind} are taken: unplug a device, or launch the machine with more")]
    NoneFree {
        /// Of which kind.
        kind: PortKind,
        /// How many there are.
        count: u16,
    },
    /// The device already has a place.
    #[error("device {0} is already plugged")]
    AlreadyPlugged(DeviceId),
    /// No place holds the device.
    #[error("device {0} is not plugged")]
    NotPlugged(DeviceId),
}

/// Which of `count` places holds which device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slots {
    kind: PortKind,
    count: u16,
    held: BTreeMap<u16, DeviceId>,
}

impl Slots {
    pub(super) fn new(kind: PortKind, count: u16) -> Result<Self, PortError> {
        if count > kind.most() {
            return Err(PortError::TooMany { kind, asked: usize::from(count) });
        }
        Ok(Self { kind, count, held: BTreeMap::new() })
    }

    pub(super) fn count(&self) -> u16 {
        self.count
    }

    pub(super) fn taken(&self) -> u16 {
        u16::try_from(self.held.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn take(&mut self, device: &DeviceId) -> Result<u16, PortError> {
        if self.find(device).is_some() {
            return Err(PortError::AlreadyPlugged(device.clone()));
        }
        let free = (0..self.count).find(|place| !self.held.contains_key(place));
        let place = free.ok_or(PortError::NoneFree { kind: self.kind, count: self.count })?;
        self.held.insert(place, device.clone());
        Ok(place)
    }

    /// Puts `device` where a record says that it is; tells whether that place is there and free.
    pub(super) fn put(&mut self, place: u16, device: DeviceId) -> bool {
        let fits = place < self.count && !self.held.contains_key(&place);
        if fits {
            self.held.insert(place, device);
        }
        fits
    }

    pub(super) fn find(&self, device: &DeviceId) -> Option<u16> {
        self.held.iter().find(|(_, held)| *held == device).map(|(place, _)| *place)
    }

    pub(super) fn give_back(&mut self, device: &DeviceId) -> Result<(), PortError> {
        let place = self.find(device).ok_or_else(|| PortError::NotPlugged(device.clone()))?;
        self.held.remove(&place);
        Ok(())
    }

    /// What is held, lowest place first.
    pub(super) fn held(&self) -> impl Iterator<Item = (u16, &DeviceId)> {
        self.held.iter().map(|(place, device)| (*place, device))
    }
}
