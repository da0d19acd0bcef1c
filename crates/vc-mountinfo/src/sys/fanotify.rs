//! `fanotify(7)` for mounts, Linux 6.14.

use std::ffi::c_char;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// `FAN_MNT_ATTACH`: a mount came.
pub(crate) const ATTACH: u64 = 0x0100_0000;
/// `FAN_MNT_DETACH`: a mount went. One that moved comes and goes in one event.
pub(crate) const DETACH: u64 = 0x0200_0000;
/// `FAN_Q_OVERFLOW`: events were lost.
pub(crate) const OVERFLOW: u64 = 0x4000;

/// Reports mounts that come and go in a mount namespace; the file does not block.
pub(crate) fn watch_mounts(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const CLOEXEC_NONBLOCK_REPORT_MNT: u32 = 0x1 | 0x2 | 0x4000;
    const ADD_MNTNS: u32 = 0x1 | 0x110;
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::syscall(libc::SYS_fanotify_init, CLOEXEC_NONBLOCK_REPORT_MNT, 0_u32) })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: fanotify_init succeeded, so `fd` is open and nobody else owns it.
    let group = unsafe { OwnedFd::from_raw_fd(fd) };
    let no_path = std::ptr::null::<c_char>();
    // SAFETY: without a path the mark is on the namespace handle itself. libc's own wrapper, since on 32-bit
    // machines the mask is passed in two halves.
    check(unsafe {
        libc::fanotify_mark(group.as_raw_fd(), ADD_MNTNS, ATTACH | DETACH, namespace.as_raw_fd(), no_path)
    })?;
    Ok(group)
}
