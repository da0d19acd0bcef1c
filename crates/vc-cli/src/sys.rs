//! The unsafe code of this crate, each piece behind a safe function.
#![expect(unsafe_code, reason = "inherited descriptors have no safe form")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::fd::BorrowedFd;
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Keeps what this process has open, but for its standard streams, from the programs that it starts.
///
/// # Errors
/// When the kernel refuses (close_range(2)).
pub(crate) fn keep_descriptors() -> io::Result<()> {
    // SAFETY: the call sets a flag of descriptors and closes none.
    let done = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the allocator hold little: one heap for all threads, and no memory that was given back. For a process that
/// lives long and does little.
pub(crate) fn hold_little_memory() {
    /// Larger pieces are the system's again when they are given back, in bytes. Streams are read in such.
    const LARGE: libc::c_int = 64 << 10;
    for (option, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, LARGE),
        (libc::M_TRIM_THRESHOLD, LARGE),
        (libc::M_TOP_PAD, 0),
    ] {
        // SAFETY: the call sets a number of the allocator's.
        let done = unsafe { libc::mallopt(option, value) };
        debug_assert_eq!(done, 1, "glibc knows the option {option}");
    }
}

/// Gives back to the system what is free.
pub(crate) fn give_memory_back() {
    // SAFETY: what is allocated stays where it is.
    unsafe { libc::malloc_trim(0) };
}

/// Gives the calling thread a mount namespace, root and working directory of its own.
///
/// # Errors
/// When the kernel refuses (unshare(2)).
pub(crate) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: what is unshared is no descriptor: nothing that safe code relies on.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?)
}

/// Takes over a descriptor that whoever started this process has left to it under an agreed number, and
/// keeps it from the programs that this one starts.
///
/// # Errors
/// When nothing was left under that number.
///
/// # Panics
/// When the number is that of a standard stream, which the standard library uses.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    assert!(number > 2, "the standard streams are not left to anybody");
    // SAFETY: the descriptor is only asked whether it is open.
    let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) })?;
    // SAFETY: it is open, and main calls this once for each number before it opens anything, so nobody
    // else in this process owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&fd, flags | FdFlags::CLOEXEC)?;
    Ok(fd)
}
