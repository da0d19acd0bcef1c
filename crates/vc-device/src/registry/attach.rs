//! Attaching: a container wants a device.

use std::collections::BTreeMap;

use vc_types::{ContainerId, DeviceId};

use super::{DeviceState, Entry, Handle, Lifetime, Registry, ReportError, UnknownHandle, Use};
use crate::request::{DeviceIdentity, DeviceRequest, DeviceSource};
use crate::spec::Access;
use crate::topology::GuestLocation;

/// A device that a container has from now on.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Attached {
    /// What to give back.
    pub handle: Handle,
    /// The device's name.
    pub device: DeviceId,
    /// Whether this container may write; if not, what it mounts is to be mounted read-only, even if the
    /// device is plugged for writing by others.
    pub access: Access,
    /// What is to be done now.
    pub step: AttachStep,
}

/// What is to be done for a device that was attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachStep {
    /// Plug it, then call [`Registry::plugged`] or [`Registry::plug_failed`]. When nobody knows how
    /// that went, call [`Registry::detach`], and unplug.
    Plug,
    /// Nothing: it is plugged, and the guest finds it here.
    Ready(GuestLocation),
    /// Nothing: there is nothing to plug.
    Made,
}

/// Why a device cannot be attached. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// It is being plugged or unplugged for somebody else, or nobody knows.
    #[error("device {device} ({identity}) is {state}; try again when that is over")]
    Busy {
        /// The device.
        device: DeviceId,
        /// What it is.
        identity: DeviceIdentity,
        /// How far it is.
        state: DeviceState,
    },
    /// It is plugged read-only and used so, and this container wants to write.
    #[error(
        "device {device} ({identity}) is plugged and used read-only, so it cannot be had for writing: ask for it read-write from the start, or read-only here too"
    )]
    PluggedReadOnly {
        /// The device.
        device: DeviceId,
        /// What it is.
        identity: DeviceIdentity,
    },
    /// It is plugged read-only, this container wants to write, and nobody uses it, such as a volume that is
    /// kept for the pod. Begin with [`Registry::unplug`]; when that is complete, attach it again.
    #[error(
        "device {device} ({identity}) is plugged read-only and nobody uses it: unplug it, then attach it for writing"
    )]
    KeptReadOnly {
        /// The device.
        device: DeviceId,
        /// What it is.
        identity: DeviceIdentity,
    },
    /// It is plugged as something else, such as a file as a disk and as memory.
    #[error(
        "device {device} ({identity}) is in the machine to be used in another way: detach it there first, or ask for it in the same way"
    )]
    OtherUse {
        /// The device.
        device: DeviceId,
        /// What it is.
        identity: DeviceIdentity,
    },
    /// No more handles; only a record that was edited by hand gets there.
    #[error("no more devices can be attached to this machine: all handle numbers are used up")]
    HandlesUsedUp,
}

/// Why a device that the machine was launched with cannot be made known. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// It is known already.
    #[error("device {device} ({identity}) is known already")]
    Known {
        /// The device.
        device: DeviceId,
        /// What it is.
        identity: DeviceIdentity,
    },
    /// It is of a kind that no machine is launched with.
    #[error("{0} is made by the agent; no machine is launched with it")]
    NotPlugged(DeviceIdentity),
    /// Another device is there.
    #[error("{identity} cannot be at {location}: {other} is there")]
    LocationTaken {
        /// What it is.
        identity: DeviceIdentity,
        /// Where it is said to be.
        location: GuestLocation,
        /// The device that is there.
        other: DeviceId,
    },
}

impl Registry {
    /// Attaches what `request` asks for to `container`.
    ///
    /// The first attach makes the device known under a new name and says that it is to be plugged. Later
    /// ones share it: a read-only request is served by a device that is plugged for writing, not the
    /// other way round.
    ///
    /// # Errors
    /// [`AttachError`]; nothing has changed then.
    pub fn attach(
        &mut self,
        request: &DeviceRequest,
        container: &ContainerId,
        lifetime: Lifetime,
    ) -> Result<Attached, AttachError> {
        let next = self.next_handle.checked_add(1).ok_or(AttachError::HandlesUsedUp)?;
        let identity = request.source.identity();
        let (device, step) = match self.find(&identity).cloned() {
            Some(device) => (device.clone(), self.share(&device, identity, request)?),
            None => self.introduce(request, lifetime),
        };
        let entry = self.devices.get_mut(&device).expect("found or made above");
        entry.lifetime = entry.lifetime.max(lifetime);
        let used = Use { container: container.clone(), access: request.access, node: request.node.clone() };
        entry.uses.insert(self.next_handle, used);
        let handle = Handle { device: device.clone(), number: self.next_handle };
        self.next_handle = next;
        Ok(Attached { handle, device, access: request.access, step })
    }

    /// Makes a device known that the machine was launched with. It has no user yet, and stays until the
    /// pod ends.
    ///
    /// # Errors
    /// [`AdoptError`] when it is known already, when another device is there, or when it is nothing that
    /// a machine is launched with.
    pub fn adopt(
        &mut self,
        source: DeviceSource,
        access: Access,
        location: GuestLocation,
    ) -> Result<DeviceId, AdoptError> {
        let identity = source.identity();
        if !source.is_plugged() {
            return Err(AdoptError::NotPlugged(identity));
        }
        if let Some(device) = self.find(&identity).cloned() {
            return Err(AdoptError::Known { device, identity });
        }
        if let Some(other) = self.at(&location).cloned() {
            return Err(AdoptError::LocationTaken { identity, location, other });
        }
        let request = DeviceRequest { source, access, node: None };
        let (device, _) = self.introduce(&request, Lifetime::Pod);
        let entry = self.devices.get_mut(&device).expect("made above");
        entry.state = DeviceState::Plugged(location);
        Ok(device)
    }

    /// The plug of a device is complete, and the guest finds it at `location`.
    ///
    /// # Errors
    /// [`ReportError`] unless it is being plugged, and nothing else is there.
    pub fn plugged(&mut self, device: &DeviceId, location: GuestLocation) -> Result<(), ReportError> {
        let there = self.at(&location).cloned();
        let entry = self.in_state(device, "plugged", |state| *state == DeviceState::Plugging)?;
        if let Some(other) = there {
            return Err(ReportError::LocationTaken { device: device.clone(), location, other });
        }
        entry.state = DeviceState::Plugged(location);
        Ok(())
    }

    /// The plug of a device failed, and nothing of it is left in the machine: it is forgotten, with its
    /// only use. When nobody knows what is left, call [`Registry::detach`] instead.
    ///
    /// # Errors
    /// [`UnknownHandle`] unless the handle is the one that the device is being plugged for. The device is
    /// then as it was.
    pub fn plug_failed(&mut self, handle: Handle) -> Result<(), UnknownHandle> {
        let entry = self.devices.get(&handle.device);
        let is_plugger =
            |entry: &&Entry| entry.state == DeviceState::Plugging && entry.uses.contains_key(&handle.number);
        if entry.filter(is_plugger).is_none() {
            return Err(UnknownHandle(handle));
        }
        self.devices.remove(&handle.device);
        Ok(())
    }

    /// What sharing a known device means for one more user.
    fn share(
        &self,
        device: &DeviceId,
        identity: DeviceIdentity,
        request: &DeviceRequest,
    ) -> Result<AttachStep, AttachError> {
        let device = device.clone();
        let entry = &self.devices[&device];
        if !entry.source.is_same_use(&request.source) {
            return Err(AttachError::OtherUse { device, identity });
        }
        let step = match &entry.state {
            DeviceState::Plugged(location) => AttachStep::Ready(location.clone()),
            DeviceState::Made => AttachStep::Made,
            state => return Err(AttachError::Busy { device, identity, state: state.clone() }),
        };
        match (entry.access, request.access) {
            _ if !entry.source.has_access_mode() => Ok(step),
            (Access::ReadOnly, Access::ReadWrite) if entry.uses.is_empty() => {
                Err(AttachError::KeptReadOnly { device, identity })
            }
            (Access::ReadOnly, Access::ReadWrite) => Err(AttachError::PluggedReadOnly { device, identity }),
            _ => Ok(step),
        }
    }

    fn introduce(&mut self, request: &DeviceRequest, lifetime: Lifetime) -> (DeviceId, AttachStep) {
        let prefix = request.source.name_prefix();
        let name = |number: usize| format!("{prefix}{number}").parse().expect("a letter, then few digits");
        let is_free = |name: &DeviceId| !self.devices.contains_key(name);
        let device = (0..).map(name).find(is_free).expect("fewer devices than numbers");
        let (state, step) = if request.source.is_plugged() {
            (DeviceState::Plugging, AttachStep::Plug)
        } else {
            (DeviceState::Made, AttachStep::Made)
        };
        let (source, access) = (request.source.clone(), request.access);
        let entry = Entry { source, access, lifetime, state, uses: BTreeMap::new() };
        self.devices.insert(device.clone(), entry);
        (device, step)
    }

    pub(super) fn in_state(
        &mut self,
        device: &DeviceId,
        report: &'static str,
        fits: impl Fn(&DeviceState) -> bool,
    ) -> Result<&mut Entry, ReportError> {
        let entry = self.devices.get_mut(device).ok_or_else(|| ReportError::Unknown(device.clone()))?;
        if !fits(&entry.state) {
            let (device, state) = (device.clone(), entry.state.clone());
            return Err(ReportError::Other { device, state, report });
        }
        Ok(entry)
    }
}
