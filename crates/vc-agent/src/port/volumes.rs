//! Files and mounts of the guest.

use std::future::Future;

use vc_types::{Deadline, GuestPath};

use crate::{AgentError, CopyFile, Storage, VolumeStats};

/// Files and mounts of the guest.
///
/// # Errors
/// Any [`AgentError`], of all methods.
///
/// # Cancel safety
/// Dropping any future of this trait abandons the answer, not the call: the guest may still do it.
pub trait Volumes: Send + Sync {
    /// Makes a directory, a link, or one piece of a regular file. Missing directories above are made.
    ///
    /// The pieces of a file are to come in order; the file is there once the last one has come.
    /// `io::copy_file` does that for a whole file.
    ///
    /// # Errors
    /// [`AgentError::Refused`] for a path that is not below `/run`, or leads out of it by a link;
    /// [`AgentError::Unsendable`] for a piece too large for one message.
    fn copy_file(
        &self,
        request: &CopyFile<'_>,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// How full the file system at `path` is.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when there is none.
    fn volume_stats(
        &self,
        path: &GuestPath,
        deadline: Deadline,
    ) -> impl Future<Output = Result<VolumeStats, AgentError>> + Send;

    /// Lets the file system at `path` grow to `bytes`, once its disk has.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when there is none, or it cannot grow.
    fn resize_volume(
        &self,
        path: &GuestPath,
        bytes: u64,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Gives mounts of the driver [`StorageDriver::Ephemeral`](crate::StorageDriver::Ephemeral) other
    /// options, such as a size.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when one is not mounted.
    fn update_ephemeral_mounts(
        &self,
        storages: &[Storage],
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Unmounts what was mounted from the shared directory and is gone there.
    ///
    /// # Errors
    /// Any [`AgentError`].
    fn remove_stale_shares(&self, deadline: Deadline) -> impl Future<Output = Result<(), AgentError>> + Send;
}
