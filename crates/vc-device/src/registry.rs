//! Who uses which device of one machine: the first attach plugs, the last detach unplugs.
//!
//! ```text
//!              attach (first)          plugged
//!   (unknown) ───────────────> Plugging ───────> Plugged <──────────┐ unplug_failed
//!       ^                      │    │              │ detach (last), │
//!       │ plug_failed          │    │ detach       │ unplug         │
//!       ├──────────────────────┘    └────────> Unplugging ──────────┘
//!       └────────────────────────────────────────┘ unplugged
//! ```
//!
//! The registry plugs nothing. It says what is to be done and is told how that went; every step is one
//! call, so nothing can come between a look and the deed.

mod attach;
mod detach;
mod entry;
mod record;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vc_types::{ContainerId, DeviceId};

use crate::request::{ContainerNode, DeviceIdentity, DeviceSource};
use crate::spec::Access;
use crate::topology::GuestLocation;

pub use attach::{AdoptError, AttachError, AttachStep, Attached};
pub use detach::{DetachStep, Detached, UnknownHandle, UnplugRefused};
pub use entry::{DeviceState, Lifetime, ReportError, Use};
pub use record::InvalidRegistry;

use entry::Entry;
use record::RegistryRecord;

/// The devices of one machine and their users.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use vc_device::{Access, AttachStep, DetachStep, DeviceRequest, DeviceSource, Lifetime, Registry};
///
/// let source = DeviceSource::Block { number: "259:3".parse()?, path: vc_types::HostPath::new("/dev/nvme0n1p3")? };
/// let volume = DeviceRequest { source, access: Access::ReadWrite, node: None };
/// let mut registry = Registry::default();
///
/// let first = registry.attach(&volume, &"init".parse()?, Lifetime::Pod)?;
/// assert_eq!(first.step, AttachStep::Plug);
/// registry.plugged(&first.device, vc_device::GuestLocation::Pci("08/00".parse()?))?;
///
/// // The init container's volume stays plugged for the next container.
/// assert_eq!(registry.detach(first.handle)?.step, DetachStep::Kept);
/// let second = registry.attach(&volume, &"web".parse()?, Lifetime::Pod)?;
/// assert!(matches!(second.step, AttachStep::Ready(_)));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "RegistryRecord", try_from = "RegistryRecord")]
pub struct Registry {
    devices: BTreeMap<DeviceId, Entry>,
    next_handle: u64,
}

/// One use of a device by one container. It has to be given back by [`Registry::detach`], or, for a
/// plug that failed, by [`Registry::plug_failed`].
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[must_use = "the device stays plugged until its handle is detached"]
#[serde(deny_unknown_fields)]
pub struct Handle {
    device: DeviceId,
    number: u64,
}

impl Handle {
    /// The device that is used.
    pub fn device(&self) -> &DeviceId {
        &self.device
    }
}

impl Registry {
    /// All devices, by name.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.devices.keys()
    }

    /// The device with this identity.
    pub fn find(&self, identity: &DeviceIdentity) -> Option<&DeviceId> {
        let known = self.devices.iter().find(|(_, entry)| entry.source.identity() == *identity);
        known.map(|(device, _)| device)
    }

    /// The device that a guest finds at `location`.
    pub fn at(&self, location: &GuestLocation) -> Option<&DeviceId> {
        let there = self.devices.iter().find(|(_, entry)| entry.location() == Some(location));
        there.map(|(device, _)| device)
    }

    /// What a device is on the host.
    pub fn source(&self, device: &DeviceId) -> Option<&DeviceSource> {
        self.devices.get(device).map(|entry| &entry.source)
    }

    /// Whether a device is plugged for writing.
    pub fn access(&self, device: &DeviceId) -> Option<Access> {
        self.devices.get(device).map(|entry| entry.access)
    }

    /// How far a device is.
    pub fn state(&self, device: &DeviceId) -> Option<&DeviceState> {
        self.devices.get(device).map(|entry| &entry.state)
    }

    /// The uses of a device, oldest first; none for an unknown one.
    pub fn uses(&self, device: &DeviceId) -> impl Iterator<Item = &Use> {
        self.devices.get(device).into_iter().flat_map(|entry| entry.uses.values())
    }

    /// The handles of a container, for whoever lost them in a restart.
    pub fn handles(&self, container: &ContainerId) -> Vec<Handle> {
        let handles = self.devices.iter().flat_map(|(device, entry)| {
            let of_container = entry.uses.iter().filter(|(_, used)| used.container == *container);
            of_container.map(|(number, _)| Handle { device: device.clone(), number: *number })
        });
        handles.collect()
    }

    /// Devices that are plugged although nobody uses them: those of the pod, and those whose unplug
    /// failed. [`Registry::unplug`] begins another attempt.
    pub fn unused(&self) -> impl Iterator<Item = &DeviceId> {
        let is_unused = |entry: &Entry| entry.uses.is_empty() && !entry.is_unplugging();
        self.devices.iter().filter(move |(_, entry)| is_unused(entry)).map(|(device, _)| device)
    }

    /// The nodes that a container is to find, with the device behind each.
    pub fn nodes(&self, container: &ContainerId) -> Vec<(&DeviceId, &ContainerNode)> {
        let nodes = self.devices.iter().flat_map(|(device, entry)| {
            let of_container = entry.uses.values().filter(|used| used.container == *container);
            of_container.filter_map(move |used| Some((device, used.node.as_ref()?)))
        });
        nodes.collect()
    }
}
