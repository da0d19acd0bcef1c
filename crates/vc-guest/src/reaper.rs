//! The one place that waits for child processes.
//!
//! PID 1 is the parent of every orphan, so waitpid(2) must be called for any child, and by one
//! caller only. A process stays a zombie, and its pid its own, until the reaper collects it; spawning,
//! registering, signalling and collecting exclude each other, so that no status is lost or given to
//! another process of the same pid.

use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How a process ended: its exit code, or 128 + n when signal n ended it.
pub type ExitStatus = i32;

/// Becomes `Some` when the process has ended; any number of callers may wait for it.
pub type Exit = watch::Receiver<Option<ExitStatus>>;

/// The children that somebody waits for.
#[derive(Clone, Debug, Default)]
pub struct Reaper(Arc<Mutex<HashMap<Pid, watch::Sender<Option<ExitStatus>>>>>);

impl Reaper {
    /// Starts to collect children in a task of its own.
    ///
    /// # Errors
    /// The error of installing the handler for SIGCHLD.
    pub fn start() -> std::io::Result<Self> {
        let reaper = Self::default();
        let mut children = signal(SignalKind::child())?;
        let task = reaper.clone();
        tokio::spawn(async move {
            loop {
                task.collect();
                if children.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    /// Starts `command` and watches it. The descriptor `inherited` stays open in it, under the same
    /// number; no other child gets it.
    ///
    /// # Errors
    /// The error of fork(2) or execve(2).
    pub fn spawn(
        &self,
        command: &mut Command,
        inherited: Option<BorrowedFd<'_>>,
    ) -> std::io::Result<(Pid, Exit)> {
        let mut children = self.lock();
        if let Some(descriptor) = inherited {
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        let spawned = command.spawn();
        if let Some(descriptor) = inherited {
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        let child = spawned?;
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("the kernel's pids are positive i32"));
        Ok((pid, watch_child(&mut children, pid)))
    }

    /// Watches `pid`, which cannot be collected before: it is the child of a process that has not
    /// ended yet, and becomes ours when that one ends. One that has gone all the same counts as killed.
    pub fn adopt(&self, pid: Pid) -> Exit {
        let mut children = self.lock();
        if kill(pid, None) == Err(Errno::ESRCH) {
            return watch::channel(Some(128 + Signal::SIGKILL as i32)).1;
        }
        watch_child(&mut children, pid)
    }

    /// A descriptor for `pid`, unless it has been collected.
    ///
    /// # Errors
    /// `ESRCH` when the process has ended; else the error of pidfd_open(2).
    pub fn open(&self, pid: Pid) -> Result<OwnedFd, Errno> {
        let children = self.lock();
        if !children.contains_key(&pid) {
            return Err(Errno::ESRCH);
        }
        sys::open_process(pid)
    }

    /// Sends the signal of this number to `pid`, unless it has been collected.
    ///
    /// # Errors
    /// `ESRCH` when the process has ended; else the error of kill(2).
    pub fn signal(&self, pid: Pid, signal: i32) -> Result<(), Errno> {
        let children = self.lock();
        if !children.contains_key(&pid) {
            return Err(Errno::ESRCH);
        }
        sys::signal_process(pid, signal)
    }

    fn collect(&self) {
        let mut children = self.lock();
        loop {
            let (pid, status) = match sys::collect_child() {
                Ok(Some(ended)) => ended,
                Ok(None) | Err(Errno::ECHILD) => return,
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "cannot wait for children");
                    return;
                }
            };
            tracing::debug!(pid = pid.as_raw(), status, "process ended");
            if let Some(exit) = children.remove(&pid) {
                exit.send_replace(Some(status));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pid, watch::Sender<Option<ExitStatus>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the process has ended.
///
/// # Cancel safety
/// Dropping the future loses nothing: the status stays for the next caller.
pub async fn wait(exit: &mut Exit) -> ExitStatus {
    match exit.wait_for(Option::is_some).await.map(|status| *status) {
        Ok(Some(status)) => status,
        // The reaper itself is gone, which ends PID 1; nobody will ever know.
        _ => std::future::pending().await,
    }
}

fn watch_child(children: &mut HashMap<Pid, watch::Sender<Option<ExitStatus>>>, pid: Pid) -> Exit {
    let (sender, receiver) = watch::channel(None);
    children.insert(pid, sender);
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_real_time_signal_is_an_end_like_any_other() {
        let reaper = Reaper::start().unwrap();
        for (script, sent, status) in [("kill -40 $$; sleep 60", None, 168), ("sleep 60", Some(64), 192)] {
            let (pid, mut exit) = reaper.spawn(&mut shell(script), None).unwrap();
            if let Some(signal) = sent {
                reaper.signal(pid, signal).unwrap();
            }
            assert_eq!(wait(&mut exit).await, status, "128 and the signal");
            assert_eq!(reaper.signal(pid, 64), Err(Errno::ESRCH), "it is forgotten");
        }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        command
    }

    // One test, as a process can have only one reaper.
    #[tokio::test]
    async fn every_waiter_gets_the_status_and_signals_find_only_the_living() {
        let reaper = Reaper::start().unwrap();
        let (_, first) = reaper.spawn(&mut shell("exit 7"), None).unwrap();
        let mut waiters = [first.clone(), first];
        for waiter in &mut waiters {
            assert_eq!(wait(waiter).await, 7);
        }

        let (pid, mut exit) = reaper.spawn(&mut shell("kill -STOP $$; exit 1"), None).unwrap();
        reaper.signal(pid, libc::SIGKILL).unwrap();
        assert_eq!(wait(&mut exit).await, 128 + 9);
        assert_eq!(reaper.signal(pid, libc::SIGKILL), Err(Errno::ESRCH));

        // Many at once, and children that nobody waits for: all statuses arrive.
        let spawned: Vec<_> =
            (0..20).map(|n| reaper.spawn(&mut shell(&format!("true & exit {n}")), None).unwrap().1).collect();
        for (n, mut exit) in spawned.into_iter().enumerate() {
            assert_eq!(wait(&mut exit).await, i32::try_from(n).unwrap());
        }

        // A command that cannot start is an error, and its failed child is no panic.
        let error = reaper.spawn(&mut Command::new("/no/such/program"), None).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
}
