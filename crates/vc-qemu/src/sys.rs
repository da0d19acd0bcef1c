//! The unsafe code of this crate, each piece behind a safe function.
#![expect(unsafe_code, reason = "pre_exec, an ioctl and AsyncFd have no safe form")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Pid, Uid, getpid, getppid, setgroups, setresgid, setresuid};
use tokio::io::unix::AsyncFd;
use tokio::process::Command;
use vc_types::VsockCid;

use crate::config::User;

/// Makes the kernel kill the child when the thread that spawned it ends (prctl(2), `PR_SET_PDEATHSIG`). The
/// workers of a tokio runtime last as long as the runtime; its blocking threads, and a thread that blocks on a
/// future, may end before.
pub(crate) fn kill_on_parent_death(command: &mut Command) {
    fn set(parent: Pid) -> io::Result<()> {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
    }
    let parent = getpid();
    // SAFETY: between fork and exec the closure makes two system calls and compares a number; it
    // neither allocates nor takes a lock.
    unsafe { command.pre_exec(move || set(parent)) };
}

/// Who a process is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) user: User,
    /// The groups it is in besides its own.
    pub(crate) groups: Vec<Gid>,
}

/// Makes the child run as somebody else, for good. To be called before [`kill_on_parent_death`], which a
/// change of the user undoes (prctl(2), `PR_SET_PDEATHSIG`).
pub(crate) fn become_user(command: &mut Command, identity: Identity) {
    let become_it = move || -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(identity.user.uid), Gid::from_raw(identity.user.gid));
        setgroups(&identity.groups)?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes three system calls with values that it owns; it
    // neither allocates nor takes a lock.
    unsafe { command.pre_exec(become_it) };
}

/// Gives an open `/dev/vhost-vsock` the guest's context id; `EADDRINUSE` when another guest has it.
pub(crate) fn set_guest_cid(vhost: &File, cid: VsockCid) -> Result<(), Errno> {
    nix::ioctl_write_ptr!(vhost_vsock_set_guest_cid, 0xaf, 0x60, u64);
    let cid = u64::from(cid.0);
    // SAFETY: the descriptor is open, and the kernel only reads the u64, which outlives the call.
    unsafe { vhost_vsock_set_guest_cid(vhost.as_raw_fd(), &cid) }.map(drop)
}

/// Watches a descriptor for when it becomes readable.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the OwnedFd is moved in, always names the same descriptor, and is closed only when the
    // AsyncFd is dropped.
    let registered = unsafe { AsyncFd::register(fd) };
    Ok(registered?)
}

/// Tells when files appear in a directory (inotify(7)).
#[derive(Debug)]
pub(crate) struct NewFiles(AsyncFd<OwnedFd>);

impl NewFiles {
    pub(crate) fn watch(dir: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(dir, AddWatchFlags::IN_CREATE)?;
        Ok(Self(watch(OwnedFd::from(inotify))?))
    }

    /// Resolves when files have appeared since the last call. Which ones is for the caller to see.
    pub(crate) async fn appeared(&self) -> io::Result<()> {
        loop {
            let mut guard = self.0.readable().await?;
            let read = guard.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), &mut [0; 4096])?));
            if let Ok(result) = read {
                return result.map(drop);
            }
        }
    }
}
