//! A child process: one task owns it, tells its end to whoever asks, and sees that it does end.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, prlimit,
};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use vc_hypervisor::ExitCause;
use vc_types::{Deadline, ProcessIdentity};

use crate::sys::{self, Identity};
use crate::tail::Tail;

/// How much of a child's standard error is kept.
const STDERR_KEPT: usize = 4096;

/// How long last words may take to arrive once whoever wrote them has ended. They are in the pipe by then; but
/// a grandchild that holds the pipe must not hold up the news.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(50);

/// As whom a child runs, and how it is bound to this process.
#[derive(Clone, Debug)]
pub(crate) struct Bonds {
    pub(crate) die_with_parent: bool,
    /// Whether it runs on when this process ends without having ended it.
    pub(crate) outlives_parent: bool,
    /// This process's own, if none.
    pub(crate) identity: Option<Identity>,
}

/// A process that is killed when this value is dropped, unless it was let go.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    is_let_go: AtomicBool,
    stderr: Tail,
    /// Names this very process, also after its number was given to another.
    handle: OwnedFd,
    exit: watch::Receiver<Option<ExitCause>>,
    /// Closed once its standard error was read to the end.
    silent: watch::Receiver<()>,
}

impl Process {
    /// Starts `command` with the descriptors of `fds`, an empty standard input, no standard output,
    /// and its standard error kept.
    pub(crate) fn spawn(mut command: Command, fds: Vec<FdMapping>, bonds: &Bonds) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.kill_on_drop(!bonds.outlives_parent);
        // Ctrl-C at a terminal goes to a whole process group; it is for whoever owns the machine to decide
        // what it means.
        command.process_group(0);
        command.fd_mappings(fds).map_err(io::Error::other)?;
        // First the user: a change of it would undo the second.
        if let Some(identity) = &bonds.identity {
            sys::become_user(&mut command, identity.clone());
        }
        if bonds.die_with_parent && !bonds.outlives_parent {
            sys::kill_on_parent_death(&mut command);
        }
        let mut child = command.spawn()?;
        let pid = child.id().expect("it was not waited for yet");
        let handle = open_handle(pid)?;
        let stderr = Tail::new(STDERR_KEPT);
        let pipe = child.stderr.take().expect("it was piped");
        let (reading, silent) = watch::channel(());
        let follow = stderr.clone().follow(pipe, || {});
        tokio::spawn(async move {
            follow.await;
            drop(reading);
        });
        let (exit_sender, exit) = watch::channel(None);
        tokio::spawn(async move { exit_sender.send_replace(Some(reap(child).await)) });
        Ok(Self { pid, is_let_go: AtomicBool::new(false), stderr, handle, exit, silent })
    }

    /// Takes over a process that another one started; `None` when it has ended. How it will end, only its
    /// parent is told.
    pub(crate) fn adopt(identity: &ProcessIdentity) -> io::Result<Option<Self>> {
        let pid = identity.pid;
        let handle = match open_handle(pid) {
            Ok(handle) => handle,
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Behind the handle, whose process has had the number since before this look.
        if ProcessIdentity::of(pid) != Some(*identity) {
            return Ok(None);
        }
        let readable = sys::watch(handle.try_clone()?)?;
        let (exit_sender, exit) = watch::channel(None);
        tokio::spawn(async move {
            // A pidfd becomes readable when its process has ended (pidfd_open(2)).
            let _ = readable.readable().await;
            exit_sender.send_replace(Some(ExitCause::Lost));
        });
        // Until its machine is complete, an error must not end it.
        let is_let_go = AtomicBool::new(true);
        // What it says, its first owner was told.
        let silent = watch::channel(()).1;
        Ok(Some(Self { pid, is_let_go, stderr: Tail::new(STDERR_KEPT), handle, exit, silent }))
    }

    /// What tells it from any other process of this host, until the next boot.
    pub(crate) fn identification(&self) -> Option<ProcessIdentity> {
        ProcessIdentity::of(self.pid)
    }

    /// Lets it run on when this value is dropped.
    pub(crate) fn let_go(&self) {
        self.is_let_go.store(true, Ordering::Relaxed);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it have as many open files as it may ask for.
    ///
    /// # Errors
    /// Those of prlimit(2), such as for a process of another user.
    pub(crate) fn raise_open_files(&self) -> io::Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        prlimit(Some(pid), Resource::Nofile, Rlimit { current: maximum, maximum })?;
        Ok(())
    }

    /// Resolves when all that it wrote to its standard error was read. To be bounded by [`LAST_WORDS`] once it
    /// has ended.
    pub(crate) async fn silent(&self) {
        let mut silent = self.silent.clone();
        while silent.changed().await.is_ok() {}
    }

    /// The end of what it wrote to its standard error, of which the last words may still come.
    pub(crate) async fn last_words(&self) -> String {
        let _ = tokio::time::timeout(LAST_WORDS, self.silent()).await;
        self.stderr_tail()
    }

    /// The end of what it wrote to its standard error, as far as it was read.
    pub(crate) fn stderr_tail(&self) -> String {
        self.stderr.text()
    }

    /// Kills it. It has ended once [`Process::exited`] says so.
    pub(crate) fn kill(&self) {
        // The only error is that it has ended, which is what is wanted.
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// Resolves when it has ended, and was reaped.
    pub(crate) async fn exited(&self) -> ExitCause {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(cause) => cause.unwrap_or(ExitCause::Lost),
            Err(_) => ExitCause::Lost,
        }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<ExitCause> {
        *self.exit.borrow()
    }

    /// Kills it and waits; `None` when it did not end in time.
    pub(crate) async fn end(&self, deadline: Deadline) -> Option<ExitCause> {
        self.kill();
        tokio::time::timeout(deadline.remaining(), self.exited()).await.ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !*self.is_let_go.get_mut() {
            self.kill();
        }
    }
}

fn open_handle(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid is a positive i32");
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

async fn reap(mut child: Child) -> ExitCause {
    let Ok(status) = child.wait().await else { return ExitCause::Lost };
    let signal = status.signal().map(ExitCause::Signaled);
    signal.or(status.code().map(ExitCause::Exited)).unwrap_or(ExitCause::Lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let bonds = Bonds { die_with_parent: true, outlives_parent: false, identity: None };
        Process::spawn(command, Vec::new(), &bonds).unwrap()
    }

    #[tokio::test]
    async fn an_end_is_told_with_the_last_words() {
        let process = shell("echo last words >&2; exit 7");
        assert_eq!(process.exited().await, ExitCause::Exited(7));
        assert_eq!(process.exited().await, ExitCause::Exited(7), "to everyone who asks");
        assert_eq!(process.last_words().await, "last words\n");
    }

    #[tokio::test]
    async fn a_grandchild_that_holds_the_pipe_holds_up_no_news() {
        let process = shell("sleep 600 & echo $! >&2");
        assert_eq!(process.exited().await, ExitCause::Exited(0));
        let words = process.last_words().await;
        let sleeper = words.trim().parse().ok().and_then(Pid::from_raw).unwrap();
        rustix::process::kill_process(sleeper, Signal::KILL).unwrap();
        process.silent().await;
    }

    #[tokio::test]
    async fn a_kill_is_an_end_too() {
        let process = shell("exec sleep 600");
        let end = process.end(Deadline::after(Duration::from_secs(30))).await;
        assert_eq!(end, Some(ExitCause::Signaled(9)));
        assert_eq!(process.ended(), end);
    }

    #[tokio::test]
    async fn a_process_that_was_let_go_can_be_adopted_and_is_told_from_others() {
        let mut command = Command::new("sh");
        command.args(["-c", "exec sleep 600"]);
        let bonds = Bonds { die_with_parent: true, outlives_parent: true, identity: None };
        let process = Process::spawn(command, Vec::new(), &bonds).unwrap();
        let known = process.identification().unwrap();
        process.let_go();
        drop(process);
        let other = ProcessIdentity { started: known.started + 1, ..known };
        assert!(Process::adopt(&other).unwrap().is_none());
        let adopted = Process::adopt(&known).unwrap().unwrap();
        let end = adopted.end(Deadline::after(Duration::from_secs(30))).await;
        assert_eq!(end, Some(ExitCause::Lost));
        assert!(Process::adopt(&known).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_dropped_process_is_killed() {
        let process = shell("exec sleep 600");
        let mut exit = process.exit.clone();
        drop(process);
        let cause = *exit.wait_for(Option::is_some).await.unwrap();
        assert_eq!(cause, Some(ExitCause::Signaled(9)));
    }
}
