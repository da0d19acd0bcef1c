//! What is plugged: where each device is, and what takes away what is behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vc_device::{GuestLocation, Place, PortError, PortKind, Topology};
use vc_types::DeviceId;

use crate::plug::Command;

/// Where a device goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Wherever there is room for a disk.
    Disk,
    /// A place of this kind.
    Port(PortKind),
    /// A port for persistent memory, which the guest numbers.
    PmemPort,
    /// A memory slot.
    PmemSlot,
}

/// Where a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Nowhere, for what is in a memory slot.
    pub(crate) place: Option<Place>,
    /// The number of the persistent memory that it is.
    pmem: Option<u32>,
}

impl Taken {
    /// Where the guest finds the device.
    pub(crate) fn location(self) -> GuestLocation {
        match (self.pmem, self.place) {
            (Some(number), _) => GuestLocation::Memory(number),
            (None, Some(place)) => place.guest_location(),
            (None, None) => unreachable!("what is in no place is memory"),
        }
    }
}

/// The devices that hold a place.
#[derive(Debug)]
pub(crate) struct Devices {
    topology: Topology,
    held: BTreeMap<DeviceId, Held>,
}

/// What takes away what is behind a device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Undo {
    pub(crate) commands: Vec<Command>,
    /// Whether all of it is known to be there, so that a refusal means that it stays.
    pub(crate) certain: bool,
}

#[derive(Debug)]
struct Held {
    taken: Taken,
    undo: Undo,
    /// Its one permit is with whoever plugs or unplugs the device, so that neither overtakes the other.
    turn: Arc<Semaphore>,
}

impl Devices {
    pub(crate) fn new(topology: Topology) -> Self {
        Self { topology, held: BTreeMap::new() }
    }

    /// Takes a place for a new device, and the first turn to work on it.
    pub(crate) fn take(
        &mut self,
        device: &DeviceId,
        wanted: Wanted,
    ) -> Result<(Taken, OwnedSemaphorePermit), PortError> {
        if self.held.contains_key(device) {
            return Err(PortError::AlreadyPlugged(device.clone()));
        }
        let place = match wanted {
            Wanted::Disk => Some(self.topology.take_for_disk(device)?),
            Wanted::Port(kind) => Some(self.topology.take(device, kind)?),
            Wanted::PmemPort => Some(self.topology.take(device, PortKind::RootPort)?),
            Wanted::PmemSlot => None,
        };
        let pmem = matches!(wanted, Wanted::PmemPort | Wanted::PmemSlot).then(|| self.free_pmem());
        let taken = Taken { place, pmem };
        let turn = Arc::new(Semaphore::new(1));
        let first = turn.clone().try_acquire_owned().expect("nobody else knows of it");
        self.held.insert(device.clone(), Held { taken, undo: Undo::default(), turn });
        Ok((taken, first))
    }

    /// Keeps what takes away what is behind the device.
    pub(crate) fn keep_undo(&mut self, device: &DeviceId, undo: Undo) {
        if let Some(held) = self.held.get_mut(device) {
            held.undo = undo;
        }
    }

    /// Where to wait for one's turn to work on a device; `None` for one that has no place.
    pub(crate) fn turn(&self, device: &DeviceId) -> Option<Arc<Semaphore>> {
        self.held.get(device).map(|held| held.turn.clone())
    }

    /// What takes away what is behind the device; `None` for one that has no place.
    pub(crate) fn undo(&self, device: &DeviceId) -> Option<Undo> {
        self.held.get(device).map(|held| held.undo.clone())
    }

    /// The devices that hold a place.
    #[cfg(test)]
    pub(crate) fn names(&self) -> std::collections::BTreeSet<DeviceId> {
        self.held.keys().cloned().collect()
    }

    /// Forgets a device that is gone for certain.
    pub(crate) fn give_back(&mut self, device: &DeviceId) {
        let place = self.held.remove(device).and_then(|held| held.taken.place);
        if place.is_some() && self.topology.give_back(device).is_err() {
            tracing::warn!(%device, "the place was already free");
        }
    }

    /// Guests number persistent memory from 0 in the order in which it comes; it never goes.
    fn free_pmem(&self) -> u32 {
        let taken = |number: &u32| self.held.values().any(|held| held.taken.pmem == Some(*number));
        (0..).find(|number| !taken(number)).expect("fewer than 2^32 devices")
    }
}
