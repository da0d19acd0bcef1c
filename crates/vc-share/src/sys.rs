//! The unsafe code of this crate, each piece behind a safe function.
#![expect(unsafe_code, reason = "mount_setattr(2), pre_exec and a watched descriptor have no safe form")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify;
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
/// workers of a tokio runtime last as long as the runtime; its blocking threads, and a thread that blocks on a
/// future, may end before.
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

/// What serving files of any owner takes (capabilities(7); the numbers are those of `linux/capability.h`): to be each
/// owner, to make what they may make, and `CAP_SYS_ADMIN` for the attributes in which an overlay keeps its notes.
const FILES: u64 = {
    const CHOWN: u64 = 1 << 0;
    const DAC_OVERRIDE: u64 = 1 << 1;
    const DAC_READ_SEARCH: u64 = 1 << 2;
    const FOWNER: u64 = 1 << 3;
    const FSETID: u64 = 1 << 4;
    const SETGID: u64 = 1 << 6;
    const SETUID: u64 = 1 << 7;
    const SYS_ADMIN: u64 = 1 << 21;
    const MKNOD: u64 = 1 << 27;
    const SETFCAP: u64 = 1 << 31;
    CHOWN | DAC_OVERRIDE | DAC_READ_SEARCH | FOWNER | FSETID | SETGID | SETUID | SYS_ADMIN | MKNOD | SETFCAP
};

/// Takes all capabilities from the child but those that serving files takes, and lets it get none by an execve(2).
pub(crate) fn limit_to_files(command: &mut Command) {
    fn limit() -> io::Result<()> {
        for capability in (0..64).filter(|number| FILES & 1 << number == 0) {
            // Refused for one that this kernel has not, or this process has not the right to give up: it is not
            // root's then, and has none to lose.
            // SAFETY: the call takes numbers only.
            let _ = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
        rustix::thread::set_no_new_privs(true)?;
        Ok(())
    }
    // SAFETY: between fork and exec the closure makes system calls and counts; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(limit) };
}

/// What appears in a directory, from now on.
#[derive(Debug)]
pub(crate) struct NewFiles(AsyncFd<OwnedFd>);

impl NewFiles {
    pub(crate) fn watch(dir: &Path) -> io::Result<Self> {
        let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        inotify::add_watch(&inotify, dir, inotify::WatchFlags::CREATE)?;
        Ok(Self(watch(inotify)?))
    }

    /// Resolves when files have appeared since the last call. Which ones is for the caller to see.
    pub(crate) async fn appeared(&self) -> io::Result<()> {
        loop {
            let mut guard = self.0.readable().await?;
            let read = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut [0_u8; 4096])?));
            if let Ok(result) = read {
                return result.map(drop);
            }
        }
    }
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
