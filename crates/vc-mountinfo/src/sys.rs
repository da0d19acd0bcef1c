//! The system calls and ioctls that neither std nor libc wraps. The only module with unsafe code.
//!
//! Numbers and layouts are those of the kernel's user-space headers (`linux/stat.h`, `linux/mount.h`,
//! `linux/loop.h`, `linux/fs.h`), which never change once released.
#![expect(unsafe_code, reason = "raw system calls; every block says why it is sound")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

mod c_path;
pub(crate) mod fanotify;
pub(crate) mod ioctl;
pub(crate) mod listmount;
pub(crate) mod poll;
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

/// Opens the absolute `path` with `O_PATH` as a process whose root directory is `root` would
/// (`openat2(2)`, Linux 5.6): symlinks lead nowhere outside of it.
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &Path, follow: bool) -> io::Result<OwnedFd> {
    /// `struct open_how`.
    #[repr(C)]
    struct How {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
    const RESOLVE_IN_ROOT: u64 = 0x10;
    let no_follow = if follow { 0 } else { libc::O_NOFOLLOW };
    let flags = libc::O_PATH | libc::O_CLOEXEC | no_follow;
    let how = How {
        flags: u64::from(flags.cast_unsigned()),
        mode: 0,
        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    with_c_path(path, |path| {
        // SAFETY: `path` is a C string and `how` a `struct open_how` of the size given; both live through
        // the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                root.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<How>(),
            )
        };
        let fd = i32::try_from(check(fd)?).map_err(io::Error::other)?;
        // SAFETY: openat2 succeeded, so `fd` is open and nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    })
}

/// The block size and the number of blocks of the filesystem that `fd` is on (`fstatvfs(3)`).
pub(crate) fn filesystem_size(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: fstatvfs writes one `struct statvfs` to `stat`.
    check(unsafe { libc::fstatvfs(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: zeroed above and made of integers.
    let stat = unsafe { stat.assume_init() };
    // The fields are narrower on 32-bit machines.
    fn wide(number: impl Into<u64>) -> u64 {
        number.into()
    }
    Ok((wide(stat.f_bsize), wide(stat.f_blocks)))
}
