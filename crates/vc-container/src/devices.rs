//! The devices of the machine and who uses them: containers with the same layers share a disk.
//!
//! The registry decides, this module makes it wait: for a device that is on its way in or out for another
//! container. It is the one thing that child tasks share; no lock is held across a wait.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;
use vc_device::{
    AttachError, Attached, DetachStep, Detached, DeviceIdentity, DeviceRequest, DeviceSource, DeviceState,
    GuestLocation, Handle, Lifetime, Registry, ReportError,
};
use vc_hypervisor::{Machine, UnplugError};
use vc_types::{ContainerId, Deadline, DeviceId};

use crate::error::Cause;
use crate::timing::Budget;

/// Who uses which device.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    registry: Mutex<Registry>,
    changed: Notify,
}

/// A device that a container holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DeviceUse {
    /// It uses it.
    Used(Handle),
    /// It was the last to use it, and the unplug failed.
    Left(DeviceId),
}

impl DeviceUse {
    pub(crate) fn device(&self) -> &DeviceId {
        match self {
            Self::Used(handle) => handle.device(),
            Self::Left(device) => device,
        }
    }
}

impl Devices {
    /// Takes up what was recorded.
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry: Mutex::new(registry), changed: Notify::new() }
    }

    /// The registry as it is now.
    pub(crate) fn snapshot(&self) -> Registry {
        self.registry().clone()
    }

    /// What of the host is in the machine, or on its way there.
    pub(crate) fn identities(&self) -> Vec<DeviceIdentity> {
        let registry = self.registry();
        registry.devices().filter_map(|device| registry.source(device)).map(DeviceSource::identity).collect()
    }

    /// What of the host the machine has plugged, and where the guest finds it.
    pub(crate) fn located(&self) -> Vec<(DeviceIdentity, GuestLocation)> {
        let registry = self.registry();
        let located = |device: &DeviceId| {
            let Some(DeviceState::Plugged(location)) = registry.state(device) else { return None };
            Some((registry.source(device)?.identity(), location.clone()))
        };
        registry.devices().filter_map(located).collect()
    }

    /// The plugged device that is this of the host.
    pub(crate) fn plugged_as(&self, identity: &DeviceIdentity) -> Option<DeviceId> {
        let registry = self.registry();
        let device = registry.find(identity)?;
        matches!(registry.state(device), Some(DeviceState::Plugged(_))).then(|| device.clone())
    }

    /// The uses of a container, for whoever lost them with the owner before.
    pub(crate) fn handles(&self, container: &ContainerId) -> Vec<Handle> {
        self.registry().handles(container)
    }

    /// Whether a container that `is_known` uses the device. Others were to be created.
    pub(crate) fn is_used_by(&self, device: &DeviceId, is_known: impl Fn(&ContainerId) -> bool) -> bool {
        self.registry().uses(device).any(|used| is_known(&used.container))
    }

    /// Forgets a device, and its uses, that the machine does not have.
    pub(crate) fn forget(&self, device: &DeviceId) {
        self.change(|registry| forget(registry, device));
    }

    /// Forgets what should be plugged and is not among the `plugged`.
    pub(crate) fn forget_all_but(&self, plugged: &BTreeSet<DeviceId>) {
        self.change(|registry| {
            let is_gone = |device: &&DeviceId| {
                let source = registry.source(device);
                source.is_some_and(DeviceSource::is_plugged) && !plugged.contains(*device)
            };
            let gone: Vec<_> = registry.devices().filter(is_gone).cloned().collect();
            gone.iter().for_each(|device| forget(registry, device));
        });
    }

    /// Attaches what `request` asks for; waits while it is being plugged or unplugged for somebody else.
    pub(crate) async fn attach(
        &self,
        request: &DeviceRequest,
        container: &ContainerId,
        budget: Budget,
    ) -> Result<Attached, AttachError> {
        loop {
            let changed = self.changed.notified();
            let busy = match self.registry().attach(request, container, Lifetime::Container) {
                // Nobody is at work on it, so that nothing would come of waiting.
                Err(busy @ AttachError::Busy { state: DeviceState::Uncertain, .. }) => return Err(busy),
                Err(busy @ AttachError::Busy { .. }) => busy,
                other => return other,
            };
            if tokio::time::timeout(budget.remaining(), changed).await.is_err() {
                return Err(busy);
            }
        }
    }

    /// The plug is complete.
    pub(crate) fn plugged(&self, device: &DeviceId, location: GuestLocation) -> Result<(), ReportError> {
        self.change(|registry| registry.plugged(device, location))
    }

    /// The plug failed, and nothing of the device is in the machine.
    pub(crate) fn plug_failed(&self, handle: Handle) {
        if let Err(error) = self.change(|registry| registry.plug_failed(handle)) {
            tracing::debug!(%error, "a device went with the machine");
        }
    }

    /// Gives a use back; unplugs the device if it was the last one. What fails is returned, to be tried
    /// again.
    pub(crate) async fn release(
        &self,
        machine: &impl Machine,
        held: DeviceUse,
        deadline: Deadline,
    ) -> Result<(), (DeviceUse, Cause)> {
        let step = match held {
            DeviceUse::Used(handle) => match self.change(|registry| registry.detach(handle)) {
                Ok(Detached { device, step: DetachStep::Unplug }) => Some(device),
                Ok(_) => None,
                Err(error) => {
                    tracing::debug!(%error, "a device went with the machine");
                    None
                }
            },
            DeviceUse::Left(device) => match self.change(|registry| registry.unplug(&device)) {
                Ok(DetachStep::Unplug) => Some(device),
                // Somebody else uses it by now, or unplugs it, or has unplugged it.
                Ok(_) | Err(_) => None,
            },
        };
        let Some(device) = step else { return Ok(()) };
        match machine.unplug(&device, deadline).await {
            // What is not there, or went with the machine, is released.
            Ok(()) | Err(UnplugError::NotPlugged { .. } | UnplugError::MachineGone { .. }) => {
                self.report(|registry| registry.unplugged(&device));
                Ok(())
            }
            Err(error) => {
                self.report(|registry| registry.unplug_failed(&device));
                Err((DeviceUse::Left(device), error.into()))
            }
        }
    }

    /// Forgets everything: the machine has ended.
    pub(crate) fn clear(&self) {
        self.change(|registry| *registry = Registry::default());
    }

    /// Reports the end of what only the caller was at; only the machine's end can come between.
    fn report(&self, report: impl FnOnce(&mut Registry) -> Result<(), ReportError>) {
        if let Err(error) = self.change(report) {
            tracing::debug!(%error, "a device went with the machine");
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Registry) -> T) -> T {
        let result = change(&mut self.registry());
        self.changed.notify_waiters();
        result
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().expect("nothing panics while it holds the registry")
    }
}

fn forget(registry: &mut Registry, device: &DeviceId) {
    let users: Vec<_> = registry.uses(device).map(|used| used.container.clone()).collect();
    for handle in users.iter().flat_map(|user| registry.handles(user)).collect::<Vec<_>>() {
        // One who uses it twice is listed twice.
        if handle.device() == device
            && let Err(error) = registry.detach(handle).map(drop)
        {
            tracing::trace!(%error, "detached before");
        }
    }
    // It is being unplugged by now if its last use was of a container; else that begins here.
    let _ = registry.unplug(device);
    if let Err(error) = registry.unplugged(device) {
        tracing::debug!(%error, "a device is forgotten already");
    }
}
