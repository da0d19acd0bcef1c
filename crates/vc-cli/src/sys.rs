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

/// Gives back to the system what is free, and the code that was needed so far: what is needed again comes back from
/// its file, the rest is as good as any other file in the kernel's cache.
pub(crate) fn give_memory_back() {
    // SAFETY: what is allocated stays where it is.
    unsafe { libc::malloc_trim(0) };
    // A process that cannot read its map keeps what it has.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, length) in code_of_files(&maps) {
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: nobody can have written to it, so that what the kernel reads again (madvise(2), MADV_DONTNEED) is what
        // was there.
        unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) };
    }
}

/// The mappings of files that may be executed and not written to: where each starts and how long it is, by
/// `/proc/self/maps` (proc(5)).
fn code_of_files(maps: &str) -> impl Iterator<Item = (usize, usize)> {
    maps.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let is_code = fields.next()? == "r-xp" && fields.nth(3)?.starts_with('/');
        let address = |text| usize::from_str_radix(text, 16).ok();
        let (start, end) = (address(start)?, address(end)?);
        is_code.then_some((start, end.checked_sub(start)?))
    })
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

    #[test]
    fn code_is_what_is_mapped_from_a_file_to_be_executed() {
        // Linux 6.12.
        let maps = "5608af06e000-5608af223000 r--p 00000000 fe:01 1234                       /usr/bin/vc\n\
            5608af223000-5608af77a000 r-xp 001b4000 fe:01 1234                       /usr/bin/vc\n\
            5608b0626000-5608b066b000 rw-p 00000000 00:00 0                          [heap]\n\
            7fbd61036000-7fbd61037000 r-xp 00000000 00:00 0 \n\
            7fbd6136d000-7fbd6136f000 r-xp 00000000 00:00 0                          [vdso]\n";
        assert_eq!(code_of_files(maps).collect::<Vec<_>>(), [(0x5608_af22_3000, 0x55_7000)]);
    }

    #[test]
    fn a_program_goes_on_without_what_it_gave_back() {
        let text = format!("{:?}", [1, 2, 3]);
        give_memory_back();
        assert_eq!(format!("{:?}", [1, 2, 3]), text);
    }
}
