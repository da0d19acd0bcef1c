//! Steps, one after the other, and the report about them.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::count::Count;
use crate::workspace::Workspace;

/// One thing to check.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) run: fn(&Workspace) -> Result<Count>,
}

/// What the steps came to.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    count: Count,
    took: Duration,
}

impl Report {
    /// Runs the step under a heading; returns whether it passed. An error counts as one failed test.
    pub(super) fn take(&mut self, step: &Step, workspace: &Workspace) -> bool {
        println!("\n== {} ==", step.name);
        let started = Instant::now();
        let count = (step.run)(workspace).unwrap_or_else(|error| {
            println!("error: {error:#}");
            Count { passed: 0, failed: 1 }
        });
        let took = started.elapsed();
        println!("== {}: {} ({:.1} s) ==", step.name, verdict(count), took.as_secs_f32());
        self.rows.push(Row { name: step.name, count, took });
        count.failed == 0
    }

    /// How many steps have run.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether every step that ran passed.
    pub(super) fn is_good(&self) -> bool {
        self.total().failed == 0
    }

    /// The table of all steps, with those that did not run, and the sum of all tests as its last line.
    pub(super) fn table<'a>(&self, not_run: impl Iterator<Item = &'a str>, took: Duration) -> String {
        let mut text = String::from("\nstep             result      tests   seconds\n");
        let mut line = |name: &str, result: &str, tests: &str, seconds: f32| {
            writeln!(text, "{name:<16} {result:<8} {tests:>8} {seconds:>9.1}")
                .expect("a String takes all text");
        };
        for row in &self.rows {
            let tests = row.count.passed + row.count.failed;
            line(row.name, verdict(row.count), &tests.to_string(), row.took.as_secs_f32());
        }
        for name in not_run {
            line(name, "not run", "", 0.0);
        }
        let Count { passed, failed } = self.total();
        line("all", verdict(self.total()), &(passed + failed).to_string(), took.as_secs_f32());
        text + &format!("\n{passed} passed, {failed} failed")
    }

    fn total(&self) -> Count {
        let mut total = Count::default();
        for row in &self.rows {
            total += row.count;
        }
        total
    }
}

fn verdict(count: Count) -> &'static str {
    if count.failed == 0 { "passed" } else { "failed" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(steps: &[Step]) -> Report {
        let workspace = Workspace::load().unwrap();
        let mut report = Report::default();
        for step in steps {
            report.take(step, &workspace);
        }
        report
    }

    #[test]
    fn the_last_line_is_the_sum() {
        let steps = [
            Step { name: "a", run: |_| Ok(Count { passed: 3, failed: 0 }) },
            Step { name: "b", run: |_| Ok(Count { passed: 4, failed: 2 }) },
        ];
        let report = report(&steps);
        assert!(!report.is_good());
        let table = report.table(["c"].into_iter(), Duration::from_secs(9));
        assert_eq!(table.lines().last(), Some("7 passed, 2 failed"));
        assert!(table.contains("\nc                not run"), "{table}");
    }

    #[test]
    fn an_error_is_a_failure() {
        let report = report(&[Step { name: "a", run: |_| anyhow::bail!("no compiler") }]);
        assert!(!report.is_good());
        let table = report.table([].into_iter(), Duration::ZERO);
        assert_eq!(table.lines().last(), Some("0 passed, 1 failed"));
    }
}
