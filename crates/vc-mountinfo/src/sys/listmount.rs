//! `listmount(2)`, Linux 6.8: the unique ids of all mounts.

use std::io;

use super::check;
use super::statmount::Request;

const SYS_LISTMOUNT: libc::c_long = 458;

/// Fills `ids` with the ids that follow `after`, in ascending order; the number filled, 0 at the end.
pub(crate) fn listmount(after: u64, namespace_id: Option<u64>, ids: &mut [u64]) -> io::Result<usize> {
    /// `LSMT_ROOT`: all mounts below the caller's root, or the namespace's.
    const ROOT: u64 = u64::MAX;
    let request = Request::new(ROOT, after, namespace_id);
    let (start, count) = (ids.as_mut_ptr(), ids.len());
    // SAFETY: `request` is a `struct mnt_id_req` of the size it states, and the kernel writes at most
    // `count` ids to `start`.
    check(unsafe { libc::syscall(SYS_LISTMOUNT, &raw const request, start, count, 0_u32) })
}
