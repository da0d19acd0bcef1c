//! The trait about devices.

use std::collections::BTreeSet;
use std::future::Future;

use vc_device::{DeviceSpec, GuestLocation};
use vc_types::{Deadline, DeviceId};

use crate::{ControlError, PlugError, UnplugError};

/// Changes the devices of a running machine.
pub trait Hotplug: Send + Sync {
    /// Plugs a device. Returns where the guest will find it; the guest may not have seen it yet.
    ///
    /// Disks find room even when every port is taken, since they can be logical units of a SCSI
    /// controller. Several may be plugged at the same time.
    ///
    /// # Errors
    /// [`PlugError`]; then nothing is left plugged, unless it is [`PlugError::Unknown`].
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the plugging; [`Hotplug::unplug`] is the way back, and waits for
    /// it.
    fn plug(
        &self,
        spec: &DeviceSpec,
        deadline: Deadline,
    ) -> impl Future<Output = Result<GuestLocation, PlugError>> + Send;

    /// The devices that were plugged and that the machine has now, as the hypervisor tells.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    fn plugged(
        &self,
        deadline: Deadline,
    ) -> impl Future<Output = Result<BTreeSet<DeviceId>, ControlError>> + Send;

    /// Unplugs a device with the guest's consent and releases what is behind it.
    ///
    /// # Errors
    /// [`UnplugError`]; the device then still holds its place, and unplugging may be tried again.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the unplugging; call again to wait for its end.
    fn unplug(
        &self,
        id: &DeviceId,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), UnplugError>> + Send;
}
