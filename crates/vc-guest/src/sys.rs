//! The system calls that have no safe wrapper. All unsafe code of this crate stands here.
#![expect(unsafe_code, reason = "raw descriptors, ioctl(2), signal(2), clone3(2), bpf(2) and mallopt(3)")]

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
pub(crate) use process::{Child, child, collect_child, open_process, signal_process};

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

/// Has the allocator keep what was freed, up to 4 MiB, for what is asked for next. It would give the large buffers of
/// the streams back to the kernel after each answer, whose pages would have to be made again for the next. One
/// arena for all threads, so that it is kept once.
pub(crate) fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in
        [(libc::M_MMAP_THRESHOLD, 4 << 20), (libc::M_TRIM_THRESHOLD, 4 << 20), (libc::M_ARENA_MAX, 1)]
    {
        // SAFETY: changes when memory is given back, and nothing that is in use. It takes effect or not; either is
        // fine.
        let _ = unsafe { libc::mallopt(parameter, value) };
    }
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

/// Asks the device mapper (`linux/dm-ioctl.h`). `message` is a `struct dm_ioctl` and what follows it;
/// version and sizes are filled in here.
///
/// # Errors
/// The error of ioctl(2); `EINVAL` for a message shorter than its header.
pub(crate) fn device_mapper(control: &std::fs::File, command: u8, message: &mut [u8]) -> Result<(), Errno> {
    const HEADER: usize = 312;
    let (true, Ok(length)) = (message.len() >= HEADER, u32::try_from(message.len())) else {
        return Err(Errno::EINVAL);
    };
    let header = [4u32, 0, 0, length, 312];
    for (at, number) in header.iter().enumerate() {
        message[4 * at..4 * at + 4].copy_from_slice(&number.to_ne_bytes());
    }
    let request = nix::request_code_readwrite!(0xfd, command, HEADER);
    // SAFETY: the kernel reads and writes no more than the `data_size` bytes that the header tells,
    // which is the length of `message`; any bytes are valid for it.
    Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), request, message.as_mut_ptr()) }).map(drop)
}

/// Stirs `data` into the kernel's random number generator and has it reseed (random(4),
/// `RNDADDENTROPY` and `RNDRESEEDCRNG`).
///
/// # Errors
/// The error of ioctl(2).
pub(crate) fn add_entropy(device: &std::fs::File, data: &[u8]) -> Result<(), Errno> {
    let length = i32::try_from(data.len()).map_err(|_| Errno::EINVAL)?;
    // struct rand_pool_info: the bits of entropy, the bytes that follow, and these.
    let mut pool = Vec::with_capacity(8 + data.len());
    pool.extend_from_slice(&length.saturating_mul(8).to_ne_bytes());
    pool.extend_from_slice(&length.to_ne_bytes());
    pool.extend_from_slice(data);
    let add = nix::request_code_write!(b'R', 0x03, size_of::<[i32; 2]>());
    // SAFETY: the kernel reads the header and as many bytes after it as the header says, which is all
    // of `pool`.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), add, pool.as_ptr()) })?;
    let reseed = nix::request_code_none!(b'R', 0x07);
    // SAFETY: this request takes no argument.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), reseed) }).map(drop)
}

/// Swaps to `device` (swapon(2)).
///
/// # Errors
/// The error of swapon(2).
pub(crate) fn swap_on(device: &std::path::Path) -> Result<(), Errno> {
    use nix::NixPath;
    // SAFETY: the path is a C string that lives for the duration of the call, which only reads it.
    let result = device.with_nix_path(|path| unsafe { libc::swapon(path.as_ptr(), 0) })?;
    Errno::result(result).map(drop)
}

/// Resizes the mounted ext4 that `volume` is in to `blocks` of its blocks (ioctl `EXT4_IOC_RESIZE_FS`).
///
/// # Errors
/// The error of ioctl(2).
pub(crate) fn resize_ext4(volume: &std::fs::File, blocks: u64) -> Result<(), Errno> {
    nix::ioctl_write_ptr!(resize_fs, b'f', 16, u64);
    // SAFETY: the kernel reads one number, which lives for the duration of the call.
    unsafe { resize_fs(volume.as_raw_fd(), &raw const blocks) }.map(drop)
}
