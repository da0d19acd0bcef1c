//! Processes: clone3(2) and pidfd_open(2).

use nix::errno::Errno;
use nix::unistd::Pid;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Not in `libc`, whose type for the flags is too short (clone(2)).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What a copy of this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Child {
    /// A child.
    Own,
    /// A child of this process's parent.
    Sibling,
    /// A child in a user namespace of its own, which has no ids yet.
    UserNamespace,
}

/// Sends the signal of this number, which may be a real-time one, for which `nix` has no name.
///
/// # Errors
/// The error of kill(2).
pub(crate) fn signal_process(pid: Pid, signal: i32) -> Result<(), Errno> {
    // SAFETY: the call takes numbers only.
    Errno::result(unsafe { libc::kill(pid.as_raw(), signal) }).map(drop)
}

/// Collects a child that has ended, and gives its exit code, or 128 + n when signal n ended it; none while all of them run.
/// By the numbers, since `nix` collects a child that a real-time signal ended and then does not tell which one it was.
///
/// # Errors
/// The error of waitpid(2).
pub(crate) fn collect_child() -> Result<Option<(Pid, i32)>, Errno> {
    let mut status = 0;
    // SAFETY: the kernel writes one number to where `status` is.
    let pid = Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) })?;
    // Without WUNTRACED and WCONTINUED nothing else is reported.
    let ended =
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    Ok((pid != 0).then_some((Pid::from_raw(pid), ended)))
}

/// A copy of this process, which must have a single thread: `None` in the copy, its pid in the original.
///
/// With `cgroup`, the directory of one, the copy starts there: moving it later would make the kernel
/// wait for a grace period.
///
/// # Errors
/// The error of clone3(2): `EAGAIN` when the cgroup has as many processes as it may have.
pub(crate) fn child(kind: Child, cgroup: Option<BorrowedFd<'_>>) -> Result<Option<Pid>, Errno> {
    let flag = match kind {
        Child::Own => 0,
        Child::Sibling => libc::CLONE_PARENT,
        Child::UserNamespace => libc::CLONE_NEWUSER,
    };
    let mut flags = u64::from(flag.cast_unsigned());
    // A sibling's end is told by the signal of this process's own (clone(2), CLONE_PARENT).
    let exit_signal = if kind == Child::Sibling { 0 } else { u64::from(libc::SIGCHLD.cast_unsigned()) };
    if cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    let arguments = libc::clone_args {
        flags,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |directory| u64::from(directory.as_raw_fd().cast_unsigned())),
    };
    // SAFETY: without CLONE_VM this is fork(2): the child goes on with a copy of all memory, on the
    // same stack. No other thread exists that could hold a lock for ever: only the executor calls
    // this, which never starts one.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) };
    match Errno::result(result)? {
        0 => Ok(None),
        pid => Ok(Some(Pid::from_raw(i32::try_from(pid).map_err(|_| Errno::EOVERFLOW)?))),
    }
}

/// A descriptor that stands for the process `pid`, which must not have been collected yet.
///
/// # Errors
/// The error of pidfd_open(2); `ESRCH` when there is no such process.
pub(crate) fn open_process(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two numbers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let descriptor = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just made the descriptor for this caller.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
