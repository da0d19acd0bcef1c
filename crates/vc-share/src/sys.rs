//! The unsafe code of this crate, each piece behind a safe function.
#![expect(unsafe_code, reason = "mount_setattr(2), pre_exec and a watched descriptor have no safe form")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, set_parent_process_death_signal,
};
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

/// `struct mount_attr` (mount_setattr(2)).
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 0x1;

/// How mounts and unmounts travel between a mount and others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Private,
    Slave,
    Shared,
}

/// Sets attributes of the mount that `mount` is the root of, with those below it: mount_setattr(2), Linux 5.12.
pub(crate) fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    read_only: bool,
    propagation: Propagation,
) -> Result<(), rustix::io::Errno> {
    let propagation = match propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Shared => libc::MS_SHARED,
    };
    let set = if read_only { MOUNT_ATTR_RDONLY } else { 0 };
    let attributes = MountAttr { set, propagation, ..MountAttr::default() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is an empty C string, and the kernel only reads the structure, whose size it is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => {
            Err(rustix::io::Errno::from_io_error(&io::Error::last_os_error())
                .unwrap_or(rustix::io::Errno::INVAL))
        }
    }
}

/// Makes the kernel kill the child when the thread that spawned it ends (prctl(2), `PR_SET_PDEATHSIG`). The
/// threads of a tokio runtime last as long as the runtime.
pub(crate) fn kill_on_parent_death(command: &mut Command) {
    fn set(parent: Pid) -> io::Result<()> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
    }
    let parent = getpid();
    // SAFETY: between fork and exec the closure makes two system calls and compares a number; it neither
    // allocates nor takes a lock.
    unsafe { command.pre_exec(move || set(parent)) };
}

/// A handle to the process that has this number now.
pub(crate) fn open_process(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Watches a descriptor for when it becomes readable.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the OwnedFd is moved in, always names the same descriptor, and is closed only when the AsyncFd is
    // dropped.
    let registered = unsafe { AsyncFd::register(fd) };
    Ok(registered?)
}
