//! The system calls and ioctls that neither std nor libc wraps. The only module with unsafe code.
//!
//! Numbers and layouts are those of the kernel's user-space headers (`linux/stat.h`, `linux/mount.h`,
//! `linux/loop.h`, `linux/fs.h`), which never change once released.
#![expect(unsafe_code, reason = "raw system calls; every block says why it is sound")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

mod c_path;
pub(crate) mod ioctl;
pub(crate) mod statmount;
pub(crate) mod statx;

/// The position of the first `byte` in `haystack`. The libc's version works on whole vectors.
pub(crate) fn find_byte(byte: u8, haystack: &[u8]) -> Option<usize> {
    let start = haystack.as_ptr();
    // SAFETY: `start` is valid for reads of `haystack.len()` bytes, which is all memchr reads.
    let found = unsafe { libc::memchr(start.cast(), byte.into(), haystack.len()) };
    (!found.is_null()).then(|| found.addr() - start.addr())
}

/// The directory to start from: an open one, or the current directory.
fn raw_dir(dir: Option<BorrowedFd<'_>>) -> RawFd {
    dir.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd())
}

/// Turns the result of `libc::syscall` or `libc::ioctl` into the error it stands for.
fn check(result: impl Into<i64>) -> io::Result<usize> {
    usize::try_from(result.into()).map_err(|_| io::Error::last_os_error())
}

/// Calls `f` with `path` as a C string, on the stack where it fits.
fn with_c_path<T>(path: &Path, f: impl FnOnce(&std::ffi::CStr) -> io::Result<T>) -> io::Result<T> {
    c_path::with(path, f)
}

/// Opens `path` with `O_PATH`: a handle that pins its mount and needs no permission on the file itself.
pub(crate) fn open_path(dir: Option<BorrowedFd<'_>>, path: &Path, follow: bool) -> io::Result<OwnedFd> {
    let no_follow = if follow { 0 } else { libc::O_NOFOLLOW };
    let flags = libc::O_PATH | libc::O_CLOEXEC | no_follow;
    with_c_path(path, |path| {
        // SAFETY: `path` is a C string that lives through the call.
        let fd = unsafe { libc::openat(raw_dir(dir), path.as_ptr(), flags) };
        check(fd)?;
        // SAFETY: openat succeeded, so `fd` is open and nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    })
}
