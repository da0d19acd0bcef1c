//! What is plugged: where each device is, and what takes away what is behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vc_device::{GuestLocation, Place, PortError, PortKind, Topology};
use vc_types::DeviceId;

use crate::plug::{Command, backend, delete_node};

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
    first_fdset: i64,
}

/// The commands that undo a plug.
const UNDO_COMMANDS: [&str; 5] = ["blockdev-del", "chardev-remove", "netdev_del", "object-del", "remove-fd"];

/// The devices as they are written down for the next owner.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DevicesRecord {
    topology: Topology,
    held: Vec<HeldRecord>,
    /// The number of the next descriptor set.
    next_fdset: i64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldRecord {
    device: DeviceId,
    pmem: Option<u32>,
    /// What takes away what is behind it, in order.
    undo: Vec<(String, Value)>,
    certain: bool,
}

/// A device's undo has a command that is none.
#[derive(Debug, thiserror::Error)]
#[error("the machine's handle undoes a plug with `{0}`, which no undo does")]
pub(crate) struct UnknownUndo(String);

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

impl TryFrom<DevicesRecord> for Devices {
    type Error = UnknownUndo;

    fn try_from(record: DevicesRecord) -> Result<Self, UnknownUndo> {
        let DevicesRecord { topology, held: records, next_fdset } = record;
        let mut held = BTreeMap::new();
        for HeldRecord { device, pmem, undo, certain } in records {
            let commands = undo.into_iter().map(|(name, arguments)| {
                let known = UNDO_COMMANDS.into_iter().find(|known| *known == name);
                known.map(|known| Command::new(known, arguments)).ok_or(UnknownUndo(name))
            });
            let undo = Undo { commands: commands.collect::<Result<_, _>>()?, certain };
            let taken = Taken { place: topology.find(&device), pmem };
            held.insert(device, Held { taken, undo, turn: Arc::new(Semaphore::new(1)) });
        }
        Ok(Self { topology, held, first_fdset: next_fdset })
    }
}

impl Devices {
    pub(crate) fn new(topology: Topology) -> Self {
        Self { topology, held: BTreeMap::new(), first_fdset: 0 }
    }

    /// The first number for a descriptor set that nobody has had.
    pub(crate) fn first_fdset(&self) -> i64 {
        self.first_fdset
    }

    /// What the next owner has to know, when `next_fdset` is the next descriptor set.
    pub(crate) fn record(&self, next_fdset: i64) -> DevicesRecord {
        let held = self.held.iter().map(|(device, held)| HeldRecord {
            device: device.clone(),
            pmem: held.taken.pmem,
            undo: held.undo.commands.iter().map(|c| (c.name.to_owned(), c.arguments.clone())).collect(),
            certain: held.undo.certain,
        });
        DevicesRecord { topology: self.topology.clone(), held: held.collect(), next_fdset }
    }

    /// Forgets devices that are not among the `plugged`, and makes those known that were plugged unheard: in no
    /// place that is known yet, with an image that may be theirs.
    pub(crate) fn keep_only(&mut self, plugged: &BTreeSet<DeviceId>) {
        let gone: Vec<_> = self.held.keys().filter(|device| !plugged.contains(*device)).cloned().collect();
        gone.iter().for_each(|device| self.give_back(device));
        for device in plugged {
            let unheard = || Held {
                taken: Taken { place: None, pmem: None },
                undo: Undo { commands: vec![delete_node(backend(device))], certain: false },
                turn: Arc::new(Semaphore::new(1)),
            };
            self.held.entry(device.clone()).or_insert_with(unheard);
        }
    }

    /// The devices that must be in a place, and are in none that is known.
    pub(crate) fn in_no_place(&self) -> Vec<DeviceId> {
        let unknown = |held: &Held| held.taken.place.is_none() && held.taken.pmem.is_none();
        self.held.iter().filter(|(_, held)| unknown(held)).map(|(device, _)| device.clone()).collect()
    }

    /// Puts a device into the place that it is in, if that is one of ours.
    pub(crate) fn put(&mut self, device: &DeviceId, is_in: impl Fn(Place) -> bool) {
        match (self.topology.take_known(device, is_in), self.held.get_mut(device)) {
            (Some(place), Some(held)) => held.taken.place = Some(place),
            _ => tracing::warn!(%device, "a device is in no place that is known"),
        }
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
    pub(crate) fn names(&self) -> BTreeSet<DeviceId> {
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
