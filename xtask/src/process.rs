//! Runs other programs, so that a failure names the whole command and says what it wrote.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context, Result, bail};
use vc_image::command;
pub(crate) use vc_image::command::{find, line};

/// Runs `command` with its output on ours.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let status =
        command.status().with_context(|| format!("cannot start `{}`; is it installed?", line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs `command` and returns its standard output; its standard error is told only if it fails.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    Ok(command::output(command)?)
}

/// As [`output`], as text.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    Ok(command::text(command)?)
}

/// A command for `program` that the kernel kills when this process ends, however it ends (setpriv(1), prctl(2),
/// `PR_SET_PDEATHSIG`). It goes with the thread that starts it.
pub(crate) fn bound(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "sh", "-c", IF_STARTED_BY]);
    command.arg(std::process::id().to_string()).arg(program);
    command
}

/// The signal is sent for a death that comes after it was asked for, and not for one before: whoever has another
/// parent by then is too late, and does not start. The first argument is the parent's process id.
const IF_STARTED_BY: &str = r#"[ "$PPID" = "$0" ] && exec "$@""#;

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

    use super::*;

    /// Set for the process that the test below kills.
    const PARENT: &str = "VC_TEST_PARENT";

    /// Not a test by itself: starts a program that would run for long, says which, and waits for it.
    #[test]
    fn a_parent_that_is_killed() {
        if std::env::var_os(PARENT).is_none() {
            return;
        }
        let mut child = bound("sleep").arg("600").spawn().unwrap();
        println!("\nstarted {}", child.id());
        child.wait().unwrap();
    }

    #[test]
    fn what_is_bound_to_one_who_is_gone_does_not_start() {
        let mut command = bound("true");
        assert!(command.status().unwrap().success());
        // As `bound`, but its parent is a shell that is not the one it was made for.
        let mut late = Command::new("sh");
        late.args(["-c", "\"$@\"; exit $?", "sh"]).arg(command.get_program()).args(command.get_args());
        assert!(!late.status().unwrap().success());
    }

    #[test]
    fn what_is_bound_ends_with_its_parent() {
        let this = std::env::current_exe().unwrap();
        for signal in [Signal::TERM, Signal::KILL] {
            let mut parent = Command::new(&this);
            parent.args(["--exact", "process::tests::a_parent_that_is_killed", "--nocapture"]);
            let mut parent = parent.env(PARENT, "1").stdout(Stdio::piped()).spawn().unwrap();
            let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines().map_while(Result::ok);
            let child = lines.find_map(|line| line.strip_prefix("started ")?.parse().ok());
            let child = pidfd_open(Pid::from_raw(child.unwrap()).unwrap(), PidfdFlags::empty()).unwrap();
            let ends = |seconds| {
                let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
                poll(&mut [PollFd::new(&child, PollFlags::IN)], Some(&timeout)).unwrap() == 1
            };
            assert!(!ends(0), "{signal:?}: it runs as long as its parent");
            kill_process(Pid::from_child(&parent), signal).unwrap();
            assert!(ends(60), "{signal:?}: it ended with its parent");
            parent.wait().unwrap();
        }
    }
}
