//! SignalProcess: one process, or all of a container.

use super::{Container, Process, Stage};
use crate::error::CallError;
use nix::errno::Errno;

impl Container {
    /// Sends `signal` to the process `exec`, or to all of the container when `exec` is empty.
    ///
    /// A process that has ended is signalled well enough.
    pub(crate) async fn signal(&self, exec: &str, signal: u32) -> Result<(), CallError> {
        // Up to the last real-time one (signal(7)).
        let signal = i32::try_from(signal).ok().filter(|signal| (1..=64).contains(signal));
        let signal = signal.ok_or(CallError::Range("the signal"))?;
        if exec.is_empty() {
            self.signal_all(signal)?;
        } else {
            self.process(exec)?.signal(signal)?;
        }
        // A frozen process gets even SIGKILL only once it is thawed, except by cgroup.kill.
        if signal == libc::SIGKILL && *self.stage() == Stage::Paused {
            self.resume().await?;
        }
        Ok(())
    }

    fn signal_all(&self, signal: i32) -> Result<(), CallError> {
        match signal {
            libc::SIGKILL => self.cgroup.kill_all()?,
            other => self.cgroup.signal_all(other),
        }
        Ok(())
    }
}

impl Process {
    /// Sends `signal`. The init of a pid namespace does not see a SIGTERM that it has no handler for
    /// (pid_namespaces(7)); it is killed instead, or stopping it would take its whole grace time.
    fn signal(&self, signal: i32) -> Result<(), CallError> {
        let status = || std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let is_unseen = signal == libc::SIGTERM && is_init(&status()) && !is_handled(&status(), signal);
        let signal = if is_unseen { libc::SIGKILL } else { signal };
        match self.reaper.signal(self.pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(CallError::System("send the signal", errno)),
        }
    }
}

/// Whether the process of this status is the first of its pid namespace (proc_pid_status(5)); that of a container which
/// shares its pids is not.
fn is_init(status: &str) -> bool {
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.and_then(|pids| pids.split_whitespace().last()) == Some("1")
}

/// Whether the process of this status has a handler for `signal`, wants to ignore it, or blocks it. What is blocked is kept
/// even for an init, which reads it (signalfd(2)): so does the one of `podman run --init`.
fn is_handled(status: &str, signal: i32) -> bool {
    let mask = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let handled = ["SigCgt:", "SigIgn:", "SigBlk:"].map(|name| mask(name).unwrap_or(0));
    handled.iter().fold(0, |all, mask| all | mask) & (1 << (signal - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_pid_tells_who_is_first() {
        assert!(is_init("Name:\tsh\nNSpid:\t123\t1\n"));
        for other in ["NSpid:\t123\t7\n", "NSpid:\t1\t7\n", "NSpid:\n", ""] {
            assert!(!is_init(other), "{other:?}");
        }
    }

    #[test]
    fn handlers_are_read_from_the_masks() {
        let status = |caught: &str, ignored: &str, blocked: &str| {
            format!(
                "Name:\tsh\nShdPnd:\t0000000000004000\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n"
            )
        };
        let none = "0000000000000000";
        let term = "0000000000004000";
        assert!(is_handled(&status(term, none, none), libc::SIGTERM));
        assert!(is_handled(&status(none, term, none), libc::SIGTERM));
        assert!(is_handled(&status(none, none, term), libc::SIGTERM));
        assert!(!is_handled(&status(none, none, none), libc::SIGTERM));
        assert!(!is_handled(&status(term, none, none), libc::SIGKILL));
        assert!(!is_handled("", libc::SIGTERM));
    }
}
