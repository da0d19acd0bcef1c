//! The trait about devices.

use std::future::Future;

use vc_device::BlockSpec;
use vc_types::{Deadline, DeviceId, PciPath};

use crate::{PlugError, UnplugError};

/// Changes the devices of a running machine.
pub trait Hotplug: Send + Sync {
    /// Plugs a disk. Returns where the guest will find it; the guest may not have seen it yet.
    ///
    /// # Errors
    /// [`PlugError`]; then nothing is left plugged, unless it is [`PlugError::Unknown`].
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the plugging; [`Hotplug::unplug`] is the way back.
    fn plug_block(
        &self,
        spec: &BlockSpec,
        deadline: Deadline,
    ) -> impl Future<Output = Result<PciPath, PlugError>> + Send;

    /// Unplugs a device with the guest's consent and releases its image.
    ///
    /// # Errors
    /// [`UnplugError`]; the device then still holds its port, and unplugging may be tried again.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the unplugging; call again to learn how it went.
    fn unplug(
        &self,
        id: &DeviceId,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), UnplugError>> + Send;
}
