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

/// Gives back to the system what is free, and lets go of the code and the constants that were used up to now: those that
/// are used again come back from the page cache, a few at a time.
pub(crate) fn give_memory_back() {
    // SAFETY: what is allocated stays where it is.
    unsafe { libc::malloc_trim(0) };
    // SAFETY: `let_go` is what it is to be, and takes no pointer.
    unsafe { libc::dl_iterate_phdr(Some(let_go), std::ptr::null_mut()) };
}

/// Lets go of the segments of a program, or of a library, that are only read (dl_iterate_phdr(3), madvise(2)).
unsafe extern "C" fn let_go(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    _: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the C library gives a description that holds for the time of this call.
    let info = unsafe { &*info };
    // SAFETY: and so do its program headers.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let page = rustix::param::page_size();
    for header in headers {
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
            let start = usize::try_from(info.dlpi_addr + header.p_vaddr).unwrap_or_default();
            let length = usize::try_from(header.p_memsz).unwrap_or_default() + start % page;
            let start = std::ptr::with_exposed_provenance_mut(start - start % page);
            // SAFETY: the pages are those of a file, never written to since code has no relocations, and come back as
            // they were.
            unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) };
        }
    }
    0
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What this process holds of files, in KiB (proc_pid_status(5)).
    fn held() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    #[test]
    fn code_that_was_let_go_comes_back() {
        let before = held();
        give_memory_back();
        let after = held();
        assert!(after < before, "{before} kB before, {after} kB after");
        let error = serde_json::from_str::<Vec<u8>>("[1, 2, x]").unwrap_err();
        assert_eq!(error.to_string(), "expected value at line 1 column 8");
    }
}
