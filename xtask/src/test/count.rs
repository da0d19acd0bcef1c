//! Runs a test command, shows what it writes, and counts the tests that it reports.

use std::io::{BufRead, BufReader, pipe};
use std::ops::AddAssign;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::process;

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs `command` to its end. A failure that no test reports, such as one to compile, is an error.
pub(super) fn run(command: &mut Command) -> Result<Count> {
    let (reader, writer) = pipe().context("cannot make a pipe")?;
    // Both streams into one pipe, so that lines keep their order: cargo test counts on one, nextest on the other.
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", process::line(command)))?;
    // The command holds our ends of the pipe; while it does, the reader never sees the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut count = Count::default();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("cannot read what the tests write")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        count += reported(&line).unwrap_or_default();
    }
    let status = child.wait().context("cannot wait for the tests")?;
    if !status.success() && count.failed == 0 {
        anyhow::bail!("`{}` failed: {status}", process::line(command));
    }
    Ok(count)
}

/// What a summary line reports: `test result: FAILED. 3 passed; 1 failed; …` (cargo test, one for each program) or
/// `     Summary [   0.1s] 4 tests run: 3 passed, 1 failed, 0 skipped` (nextest, one for all). nextest also shows, indented,
/// what the program of a failed test reported: that is no other failure.
fn reported(line: &str) -> Option<Count> {
    let summary = if let Some(rest) = line.strip_prefix("test result: ") {
        rest.split_once(". ")?.1
    } else {
        line.trim_start().strip_prefix("Summary ")?.split_once("run: ")?.1
    };
    let number = |outcomes: &[&str]| {
        let parts = summary.split([',', ';']).filter_map(|part| part.trim().split_once(' '));
        let named = parts.filter(|(_, outcome)| outcomes.iter().any(|name| outcome.starts_with(name)));
        named.filter_map(|(number, _)| number.parse::<u32>().ok()).sum()
    };
    Some(Count { passed: number(&["passed"]), failed: number(&["failed", "timed out", "exec failed"]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_lines_are_counted() {
        let cases = [
            ("test result: ok. 28 passed; 0 failed; 0 ignored; 0 measured; finished in 0.1s", 28, 0),
            ("test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out", 3, 1),
            ("     Summary [   0.052s] 28 tests run: 28 passed, 0 skipped", 28, 0),
            (
                "     Summary [   1.1s] 9 tests run: 5 passed (1 slow), 2 failed, 1 timed out, 1 exec failed, 3 skipped",
                5,
                4,
            ),
        ];
        for (line, passed, failed) in cases {
            assert_eq!(reported(line), Some(Count { passed, failed }), "{line}");
        }
    }

    #[test]
    fn other_lines_count_nothing() {
        for line in [
            "",
            "running 3 tests",
            "test a ... ok",
            "I say: test result: ok. 1 passed",
            "Summary",
            "    test result: FAILED. 0 passed; 1 failed",
        ] {
            assert_eq!(reported(line), None, "{line}");
        }
    }

    #[test]
    fn a_command_is_counted_over_both_streams() {
        let script = "echo 'test result: ok. 2 passed; 0 failed'; echo 'Summary [1s] 2 tests run: 1 passed, 1 failed' >&2";
        let count = run(Command::new("sh").args(["-c", &format!("{script}; exit 100")])).unwrap();
        assert_eq!(count, Count { passed: 3, failed: 1 });
    }

    #[test]
    fn a_failure_without_a_failed_test_is_an_error() {
        let error =
            run(Command::new("sh").args(["-c", "echo 'test result: ok. 2 passed; 0 failed'; exit 101"]));
        assert!(error.unwrap_err().to_string().contains("exit status: 101"));
    }
}
