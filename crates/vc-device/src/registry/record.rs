//! A registry as it is written down, and checked when it is read back.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use vc_types::DeviceId;

use super::{DeviceState, Entry, Lifetime, Registry, Use};
use crate::request::{DeviceIdentity, DeviceSource};
use crate::spec::Access;
use crate::topology::GuestLocation;

/// The version of the form below.
const VERSION: u32 = 1;

/// Why a record is no registry. It was damaged or edited: a machine must not be run by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRegistry {
    /// Written by another version.
    #[error("the record of devices has version {0}; this program reads version {VERSION}")]
    Version(u32),
    /// Two devices with one name.
    #[error("the record of devices has {0} twice")]
    NameTwice(DeviceId),
    /// Two names for one device.
    #[error("the record of devices has the {0} under two names")]
    IdentityTwice(DeviceIdentity),
    /// Two devices in one place.
    #[error("the record of devices has two devices at {0}")]
    LocationTwice(GuestLocation),
    /// A name that a device of its kind does not get.
    #[error("the record of devices has {device} for a device whose name starts with {prefix}")]
    Name {
        /// The name.
        device: DeviceId,
        /// What it should start with.
        prefix: &'static str,
    },
    /// A handle that was never given, or that two uses have.
    #[error("the record of devices has handle {number} of {device}, which was given to nobody or to two")]
    Handle {
        /// The device.
        device: DeviceId,
        /// The handle's number.
        number: u64,
    },
    /// Uses that do not go with the state of the device.
    #[error("the record of devices has {device} {state}, with {uses} uses and access {access:?}")]
    Inconsistent {
        /// The device.
        device: DeviceId,
        /// How far it is.
        state: DeviceState,
        /// How many uses it has.
        uses: usize,
        /// How it is plugged.
        access: Access,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegistryRecord {
    version: u32,
    next_handle: u64,
    devices: Vec<DeviceRecord>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceRecord {
    name: DeviceId,
    source: DeviceSource,
    access: Access,
    lifetime: Lifetime,
    state: DeviceState,
    uses: Vec<UseRecord>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UseRecord {
    handle: u64,
    by: Use,
}

impl From<Registry> for RegistryRecord {
    fn from(registry: Registry) -> Self {
        let devices = registry.devices.into_iter().map(|(name, entry)| {
            let Entry { source, access, lifetime, state, uses } = entry;
            let uses = uses.into_iter().map(|(handle, by)| UseRecord { handle, by }).collect();
            DeviceRecord { name, source, access, lifetime, state, uses }
        });
        Self { version: VERSION, next_handle: registry.next_handle, devices: devices.collect() }
    }
}

impl TryFrom<RegistryRecord> for Registry {
    type Error = InvalidRegistry;

    fn try_from(record: RegistryRecord) -> Result<Self, InvalidRegistry> {
        if record.version != VERSION {
            return Err(InvalidRegistry::Version(record.version));
        }
        let mut seen = Seen::default();
        let mut devices = BTreeMap::new();
        for device in record.devices {
            let name = device.name.clone();
            let entry = seen.check(device, record.next_handle)?;
            if devices.insert(name.clone(), entry).is_some() {
                return Err(InvalidRegistry::NameTwice(name));
            }
        }
        Ok(Self { devices, next_handle: record.next_handle })
    }
}

/// What of a record was read before.
#[derive(Default)]
struct Seen {
    identities: BTreeSet<DeviceIdentity>,
    locations: BTreeSet<GuestLocation>,
    handles: BTreeSet<u64>,
}

impl Seen {
    fn check(&mut self, record: DeviceRecord, next_handle: u64) -> Result<Entry, InvalidRegistry> {
        let DeviceRecord { name, source, access, lifetime, state, uses: records } = record;
        let prefix = source.name_prefix();
        if !has_name(&name, prefix) {
            return Err(InvalidRegistry::Name { device: name, prefix });
        }
        let identity = source.identity();
        if !self.identities.insert(identity.clone()) {
            return Err(InvalidRegistry::IdentityTwice(identity));
        }
        let mut uses = BTreeMap::new();
        for UseRecord { handle: number, by } in records {
            if number >= next_handle || !self.handles.insert(number) {
                return Err(InvalidRegistry::Handle { device: name, number });
            }
            uses.insert(number, by);
        }
        let entry = Entry { source, access, lifetime, state, uses };
        if let Some(at) = entry.location().filter(|at| !self.locations.insert((*at).clone())) {
            return Err(InvalidRegistry::LocationTwice(at.clone()));
        }
        if is_consistent(&entry) {
            return Ok(entry);
        }
        let (state, uses) = (entry.state, entry.uses.len());
        Err(InvalidRegistry::Inconsistent { device: name, state, uses, access })
    }
}

fn has_name(name: &DeviceId, prefix: &str) -> bool {
    let digits = name.as_str().strip_prefix(prefix);
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_consistent(entry: &Entry) -> bool {
    let uses = entry.uses.len();
    let states_fit = match &entry.state {
        DeviceState::Plugging => uses == 1,
        DeviceState::Made => uses > 0,
        DeviceState::Unplugging { .. } | DeviceState::Uncertain => uses == 0,
        DeviceState::Plugged(_) => true,
    };
    let kinds_fit = entry.source.is_plugged() != (entry.state == DeviceState::Made);
    let writers = entry.uses.values().any(|used| used.access == Access::ReadWrite);
    let access_fits = !entry.source.has_access_mode() || entry.access == Access::ReadWrite || !writers;
    states_fit && kinds_fit && access_fits
}
