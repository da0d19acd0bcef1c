//! The guest's kernel: processors, memory, clock, entropy.

use std::future::Future;
use std::time::SystemTime;

use vc_types::{Deadline, GuestPath, PciPath};

use crate::{AgentError, Online};

/// The guest's kernel.
///
/// # Errors
/// Any [`AgentError`], of all methods.
///
/// # Cancel safety
/// Dropping any future of this trait abandons the answer, not the call: the guest may still do it.
pub trait System: Send + Sync {
    /// Takes plugged processors and memory into use.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when they do not appear.
    fn online(&self, what: Online, deadline: Deadline)
    -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Tells a kernel that does not notice plugged memory by itself where it is: the physical addresses
    /// of its blocks, each of the size of [`GuestDetails::memory_block`](crate::GuestDetails::memory_block).
    ///
    /// # Errors
    /// [`AgentError::Refused`] by a guest without
    /// [`GuestDetails::memory_probe`](crate::GuestDetails::memory_probe).
    fn probe_memory(
        &self,
        addresses: &[u64],
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Makes a disk the guest's swap space.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when there is no such disk.
    fn add_swap(
        &self,
        disk: &PciPath,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Makes a file or device of the guest its swap space.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when there is none at `path`.
    fn add_swap_file(
        &self,
        path: &GuestPath,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Sets the guest's clock, to a microsecond.
    ///
    /// # Errors
    /// [`AgentError::Unsendable`] for a time before 1970.
    fn set_time(
        &self,
        time: SystemTime,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Mixes `entropy` into the guest's random numbers: a machine that was cloned repeats its twin's.
    ///
    /// # Errors
    /// [`AgentError::Unsendable`] without any.
    fn reseed_random(
        &self,
        entropy: &[u8],
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;
}
