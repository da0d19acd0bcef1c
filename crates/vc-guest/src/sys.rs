//! The system calls that have no safe wrapper. All unsafe code of this crate stands here.
#![expect(unsafe_code, reason = "raw descriptors, ioctl(2), signal(2), clone3(2) and bpf(2)")]

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

mod bpf;
mod process;

pub(crate) use bpf::attach_device_program;
pub(crate) use process::{child_in, open_process};

/// The most descriptors that are taken from one message.
pub(crate) const MAX_DESCRIPTORS: usize = 8;

/// Receives the descriptors that a peer sent over a Unix socket with `SCM_RIGHTS` (unix(7)), together
/// with at most `bytes.len()` bytes. None of either at the end of the stream.
///
/// # Errors
/// The error of recvmsg(2).
pub(crate) fn receive_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    flags: MsgFlags,
) -> Result<Vec<OwnedFd>, Errno> {
    let mut buffers = [IoSliceMut::new(bytes)];
    let mut space = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut buffers,
        Some(&mut space),
        flags | MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            // SAFETY: the kernel has just made these descriptors for this process; nobody else
            // knows their numbers, and each is wrapped exactly once.
            received.extend(descriptors.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(received)
}

/// Takes the descriptor `number` that the parent left open across exec for this process.
///
/// Works once per process: a second caller would own the same descriptor.
pub(crate) fn inherited_descriptor(number: RawFd) -> Option<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let is_open = nix::fcntl::fcntl(borrow(number)?, nix::fcntl::FcntlArg::F_GETFD).is_ok();
    if !is_open || TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: the descriptor is open, the command line handed it to this process, and `TAKEN`
    // makes sure that only one owner is made.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

fn borrow(number: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: used for one fcntl(2) only, which answers EBADF for a number that is not open. A
    // negative number is refused, as -1 is not a valid `BorrowedFd`.
    (number >= 0).then(|| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Has the runtime tell when `descriptor`, which must not block, is ready (epoll(7)).
///
/// # Errors
/// The error of epoll_ctl(2), such as `EPERM` for a regular file.
pub(crate) fn watch_descriptor(descriptor: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it lives. The number stays that of the descriptor:
    // no user of this crate replaces what is in an `AsyncFd` (`get_mut` is not used).
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}

/// Gives `signal` its default action (signal(2)).
///
/// # Errors
/// The error of sigaction(2).
pub(crate) fn reset_signal(signal: Signal) -> Result<(), Errno> {
    // SAFETY: the default action runs no code of this process.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }.map(drop)
}

/// Ignores `signal` (signal(2)). Ignoring SIGCHLD lets the kernel reap children.
///
/// # Errors
/// The error of sigaction(2).
pub(crate) fn ignore_signal(signal: Signal) -> Result<(), Errno> {
    // SAFETY: an ignored signal runs no code of this process.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }.map(drop)
}

/// Sets the window size of the terminal behind `master` (ioctl_tty(2), `TIOCSWINSZ`).
///
/// # Errors
/// The error of ioctl(2).
pub(crate) fn set_window_size(master: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<(), Errno> {
    nix::ioctl_write_ptr_bad!(tiocswinsz, libc::TIOCSWINSZ, libc::winsize);
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` is a valid winsize for the duration of the call, which only reads it.
    unsafe { tiocswinsz(master.as_raw_fd(), &raw const size) }.map(drop)
}

/// Brings the network interface `name` up (netdevice(7), `SIOCSIFFLAGS`).
///
/// # Errors
/// The error of ioctl(2).
pub(crate) fn bring_up(socket: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    nix::ioctl_read_bad!(siocgifflags, libc::SIOCGIFFLAGS, libc::ifreq);
    nix::ioctl_write_ptr_bad!(siocsifflags, libc::SIOCSIFFLAGS, libc::ifreq);
    // SAFETY: ifreq is plain data, for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let last = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..last].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: `request` outlives both calls; SIOCGIFFLAGS fills the member that is read below.
    unsafe {
        siocgifflags(socket.as_raw_fd(), &raw mut request)?;
        request.ifr_ifru.ifru_flags |= i16::try_from(libc::IFF_UP).unwrap_or_default();
        siocsifflags(socket.as_raw_fd(), &raw const request).map(drop)
    }
}
