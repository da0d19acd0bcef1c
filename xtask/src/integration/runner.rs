//! Runs tests of a plan on the host that this program runs on: each in a process of its own, one after the other.

use std::fs::File;
use std::io::{BufRead, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::plan::{Plan, Test};
use super::report::{Outcome, Report, line, title};
use crate::process;

/// The longest that a test may take: several times what the slowest takes where machines start slowest.
pub(super) const DEADLINE: Duration = Duration::from_secs(300);

/// The line of a runner that waits for its first number.
pub(super) const UP: &str = "nested host: up";

/// Runs all tests; writes a line about each, and before that what a failed one wrote.
pub(super) fn run(plan: &Plan) -> Result<Report> {
    let mut report = Report::default();
    for (number, test) in (1..).zip(&plan.tests) {
        let (outcome, took) = run_and_tell(plan, (number, test))?;
        report.add(test, outcome, took);
    }
    Ok(report)
}

/// Runs the tests whose numbers are asked for, a line for each, until no more come; writes what [`run`] does.
pub(super) fn serve(plan: &Plan, numbers: impl BufRead) -> Result<()> {
    for number in numbers.lines() {
        let number = number.context("cannot read which test is next")?;
        let test = number
            .parse()
            .ok()
            .and_then(|number: usize| Some((number, plan.tests.get(number.checked_sub(1)?)?)));
        run_and_tell(plan, test.with_context(|| format!("there is no test {number:?}"))?)?;
    }
    Ok(())
}

fn run_and_tell(plan: &Plan, (number, test): (usize, &Test)) -> Result<(Outcome, Duration)> {
    let begun = Instant::now();
    let (outcome, output) = run_test(test, plan)?;
    let took = begun.elapsed();
    if let Outcome::Failed(_) = &outcome {
        println!("what {} wrote:\n{output}", title(test));
    }
    println!("{}", line((number, plan.tests.len()), test, &outcome, took));
    Ok((outcome, took))
}

/// Runs one test; returns what it wrote with it.
fn run_test(test: &Test, plan: &Plan) -> Result<(Outcome, String)> {
    let mut log = tempfile::tempfile().context("cannot make a temporary file")?;
    let mut command = process::bound(&test.program);
    command.args(["--exact", &test.name, "--nocapture"]).current_dir(&test.directory).envs(&plan.variables);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", test.program.display()))?;
    let ended = wait(&mut child)?;
    let output = text(&mut log)?;
    let outcome = match ended {
        None => Outcome::Failed(format!("it was ended after {} s", DEADLINE.as_secs())),
        Some(status) => judge(status, &output),
    };
    Ok((outcome, output))
}

/// Waits until the test ends by itself, or ends it and all that it started.
fn wait(child: &mut Child) -> Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let process = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch the test")?;
    let deadline = Timespec::try_from(DEADLINE).context("the deadline is too long")?;
    let ended =
        poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&deadline)).context("cannot wait")? > 0;
    if !ended {
        // The group may be empty by now, when the test ended in between.
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let status = child.wait().context("cannot wait for the test")?;
    Ok(ended.then_some(status))
}

fn judge(status: ExitStatus, output: &str) -> Outcome {
    if !status.success() {
        return Outcome::Failed(
            status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}")),
        );
    }
    // A renamed test would otherwise count as passed.
    if !output.contains("1 passed") {
        return Outcome::Failed("the program has no such test".into());
    }
    // Not only at the start of a line: the harness writes the test's name before it.
    match output.lines().find_map(|line| line.split_once("skipped: ")) {
        Some((_, why)) => Outcome::Skipped(why.trim().to_owned()),
        None => Outcome::Passed,
    }
}

fn text(log: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    log.seek(SeekFrom::Start(0))
        .and_then(|_| log.read_to_end(&mut bytes))
        .context("cannot read the test's output")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str) -> Test {
        let program = std::env::current_exe().unwrap();
        Test { suite: "xtask".into(), name: name.into(), program, directory: "/".into() }
    }

    #[test]
    fn this_one_is_skipped_by_its_own_words() {
        println!("skipped: for the test below");
    }

    #[test]
    fn a_number_without_a_test_is_named() {
        for number in ["0", "2", "", "one"] {
            let plan = Plan { tests: vec![test("no_such_test")], ..Plan::default() };
            let error = serve(&plan, format!("{number}\n").as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), format!("there is no test {number:?}"));
        }
        serve(&Plan::default(), &b""[..]).unwrap();
    }

    #[test]
    fn outcomes_are_told_apart() {
        let run = |name: &str| run_test(&test(name), &Plan::default()).unwrap().0;
        let skipped = run("integration::runner::tests::this_one_is_skipped_by_its_own_words");
        assert_eq!(skipped, Outcome::Skipped("for the test below".into()));
        let passed = run("integration::report::tests::a_table_tells_what_was_skipped_and_ends_with_the_sum");
        assert_eq!(passed, Outcome::Passed);
        assert_eq!(run("no_such_test"), Outcome::Failed("the program has no such test".into()));
        let failed = judge(ExitStatus::from_raw(101 << 8), "");
        assert_eq!(failed, Outcome::Failed("exit status: 101".into()));
        assert_eq!(judge(ExitStatus::from_raw(9), ""), Outcome::Failed("signal 9".into()));
    }
}
