//! Runs other programs, so that a failure names the whole command and says what it wrote.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `command` with its output on ours.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| start_failure(command))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs `command` and returns its standard output; its standard error is told only if it fails.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    output_with_input(command.stdin(Stdio::null()))
}

/// As [`output`], with the standard input that the caller has set.
pub(crate) fn output_with_input(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| start_failure(command))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}\n{}", line(command), output.status, stderr.trim_end());
    }
    Ok(output.stdout)
}

/// As [`output`], as text.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    let bytes = output(command)?;
    String::from_utf8(bytes).with_context(|| format!("`{}` wrote something else than UTF-8", line(command)))
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

/// The program of this name that `PATH` leads to.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    find_in(&std::env::var_os("PATH").unwrap_or_default(), program)
}

/// As [`find`], with a `PATH` of one's own.
pub(crate) fn find_in(path: &OsStr, program: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// The command as one would type it (without quoting; it is for people).
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn start_failure(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    format!("cannot start `{program}`; is it installed?")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

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
