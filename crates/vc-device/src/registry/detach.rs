//! Detaching: a container no longer needs a device.

use vc_types::{ContainerId, DeviceId};

use super::{DeviceState, Handle, Lifetime, Registry, ReportError};

/// A device that a container has no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Detached {
    /// The device.
    pub device: DeviceId,
    /// What is to be done now.
    pub step: DetachStep,
}

/// What is to be done for a device that was detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetachStep {
    /// Unplug it, then call [`Registry::unplugged`] or [`Registry::unplug_failed`].
    Unplug,
    /// Nothing: so many others use it.
    StillUsed(usize),
    /// Nothing: it belongs to the pod, and waits for the next container.
    Kept,
    /// Nothing: there was nothing plugged.
    Forgotten,
}

/// No use has this handle: it was given back already, or is of another machine. Everything is as it was.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("device {} is not attached by handle {}: it was detached before, or is of another machine", .0.device, .0.number)]
pub struct UnknownHandle(pub Handle);

/// Why a device is not unplugged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnplugRefused {
    /// No such device.
    #[error("device {0} is not known")]
    Unknown(DeviceId),
    /// Somebody uses it.
    #[error("device {device} is used {uses} times: detach it first")]
    Used {
        /// The device.
        device: DeviceId,
        /// How often.
        uses: usize,
    },
    /// It is being unplugged already.
    #[error("device {0} is being unplugged already")]
    Unplugging(DeviceId),
}

impl Registry {
    /// Gives a use back. The last one of a device of its containers says that it is to be unplugged; the
    /// device is known, and its name and place are taken, until [`Registry::unplugged`].
    ///
    /// A device that is being plugged may be detached too: when nobody knows how the plug went, unplug
    /// is the way back.
    ///
    /// # Errors
    /// [`UnknownHandle`], with the handle; everything is as it was.
    pub fn detach(&mut self, handle: Handle) -> Result<Detached, UnknownHandle> {
        let entry = self.devices.get_mut(&handle.device);
        let Some(entry) = entry.filter(|entry| entry.uses.contains_key(&handle.number)) else {
            return Err(UnknownHandle(handle));
        };
        entry.uses.remove(&handle.number);
        let step = match (entry.uses.len(), &entry.state, entry.lifetime) {
            (uses @ 1.., _, _) => DetachStep::StillUsed(uses),
            (0, DeviceState::Made, _) => DetachStep::Forgotten,
            (0, DeviceState::Plugged(_), Lifetime::Pod) => DetachStep::Kept,
            (0, _, _) => DetachStep::Unplug,
        };
        match step {
            DetachStep::Unplug => entry.state = unplugging(&entry.state),
            DetachStep::Forgotten => drop(self.devices.remove(&handle.device)),
            DetachStep::StillUsed(_) | DetachStep::Kept => {}
        }
        Ok(Detached { device: handle.device, step })
    }

    /// Gives all uses of a container back. One device never keeps another one from being detached.
    pub fn detach_container(&mut self, container: &ContainerId) -> Vec<Detached> {
        let handles = self.handles(container);
        handles.into_iter().filter_map(|handle| self.detach(handle).ok()).collect()
    }

    /// Begins the unplug of a device that nobody uses: one of the pod when that ends, or one whose
    /// unplug failed before.
    ///
    /// # Errors
    /// [`UnplugRefused`] when it is used, unknown or being unplugged already.
    pub fn unplug(&mut self, device: &DeviceId) -> Result<DetachStep, UnplugRefused> {
        let entry = self.devices.get_mut(device).ok_or_else(|| UnplugRefused::Unknown(device.clone()))?;
        if entry.is_unplugging() {
            return Err(UnplugRefused::Unplugging(device.clone()));
        }
        if !entry.uses.is_empty() {
            return Err(UnplugRefused::Used { device: device.clone(), uses: entry.uses.len() });
        }
        if entry.state == DeviceState::Made {
            self.devices.remove(device);
            return Ok(DetachStep::Forgotten);
        }
        entry.state = unplugging(&entry.state);
        Ok(DetachStep::Unplug)
    }

    /// The unplug of a device is complete: it is forgotten, and its name is free.
    ///
    /// # Errors
    /// [`ReportError`] unless it is being unplugged.
    pub fn unplugged(&mut self, device: &DeviceId) -> Result<(), ReportError> {
        self.in_state(device, "unplugged", |state| matches!(state, DeviceState::Unplugging { .. }))?;
        self.devices.remove(device);
        Ok(())
    }

    /// The unplug of a device failed: the machine has it still. It can be attached again, or be unplugged
    /// by another [`Registry::unplug`].
    ///
    /// # Errors
    /// [`ReportError`] unless it is being unplugged.
    pub fn unplug_failed(&mut self, device: &DeviceId) -> Result<(), ReportError> {
        let is_unplugging = |state: &DeviceState| matches!(state, DeviceState::Unplugging { .. });
        let entry = self.in_state(device, "asked to unplug", is_unplugging)?;
        if let DeviceState::Unplugging { from } = &entry.state {
            entry.state = from.clone().map_or(DeviceState::Uncertain, DeviceState::Plugged);
        }
        Ok(())
    }
}

fn unplugging(state: &DeviceState) -> DeviceState {
    let from = match state {
        DeviceState::Plugged(location) => Some(location.clone()),
        _ => None,
    };
    DeviceState::Unplugging { from }
}
