//! The trait about the size of a running machine.

use std::future::Future;
use std::num::NonZeroU8;

use vc_types::{Deadline, DeviceId, MiB};

use crate::ResizeError;

/// Changes the size of a running machine.
///
/// The hypervisor gives; whether the guest uses it, its agent says (`OnlineCPUMem`). What is taken away
/// the guest gives up itself, and it may refuse: the answers say what the machine has now.
pub trait Resize: Send + Sync {
    /// Gives the machine `wanted` vCPUs; returns how many it has now.
    ///
    /// # Errors
    /// [`ResizeError`]. When it is [`ResizeError::Unknown`], call again: the hypervisor is asked what is
    /// there before anything changes.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the change; call again to learn how it went.
    fn resize_vcpus(
        &self,
        wanted: NonZeroU8,
        deadline: Deadline,
    ) -> impl Future<Output = Result<NonZeroU8, ResizeError>> + Send;

    /// Gives the machine `wanted` memory, or a little more where memory comes in larger pieces; returns
    /// how much it has now.
    ///
    /// # Errors
    /// [`ResizeError`], as [`Resize::resize_vcpus`].
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the change; call again to learn how it went.
    fn resize_memory(
        &self,
        wanted: MiB,
        deadline: Deadline,
    ) -> impl Future<Output = Result<MiB, ResizeError>> + Send;

    /// Tells the machine that the image of a plugged disk has grown to `bytes` on the host. A disk that has that
    /// size keeps it. `bytes` must be what the image has: a longer file would be cut to it.
    ///
    /// # Errors
    /// [`ResizeError`]: [`ResizeError::NoDisk`] when it is not plugged, [`ResizeError::TooLittle`] when `bytes` are
    /// fewer than the disk has.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the change; call again to learn how it went.
    fn grow_disk(
        &self,
        disk: &DeviceId,
        bytes: u64,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), ResizeError>> + Send;
}
