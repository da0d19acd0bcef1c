//! What ran, what was skipped and why, and how long it took.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::plan::Test;
use crate::test::Count;

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    /// Passed by saying that it does not apply here, and why.
    Skipped(String),
    Failed(String),
}

/// The outcomes of a run.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<(Test, Outcome, Duration)>,
}

impl Report {
    /// Adds the outcome of a test.
    pub(super) fn add(&mut self, test: &Test, outcome: Outcome, took: Duration) {
        self.rows.push((test.clone(), outcome, took));
    }

    /// The sums. A skipped test has neither passed nor failed.
    pub(super) fn count(&self) -> Count {
        let number = |wanted: fn(&Outcome) -> bool| {
            u32::try_from(self.rows.iter().filter(|(_, outcome, _)| wanted(outcome)).count())
                .unwrap_or(u32::MAX)
        };
        Count {
            passed: number(|outcome| *outcome == Outcome::Passed),
            failed: number(|outcome| matches!(outcome, Outcome::Failed(_))),
        }
    }

    /// A table by test program, the tests that were skipped with their reasons, those that failed, and the sum as the
    /// last line.
    pub(super) fn table(&self, took: Duration) -> String {
        let mut programs: BTreeMap<&str, ([u32; 3], Duration)> = BTreeMap::new();
        for (test, outcome, took) in &self.rows {
            let (numbers, sum) = programs.entry(&test.suite).or_default();
            let column = match outcome {
                Outcome::Passed => 0,
                Outcome::Skipped(_) => 1,
                Outcome::Failed(_) => 2,
            };
            numbers[column] += 1;
            *sum += *took;
        }
        let mut text = String::from("\ntests                      passed skipped  failed   seconds\n");
        let mut line = |name: &str, [passed, skipped, failed]: [u32; 3], took: Duration| {
            let took = took.as_secs_f32();
            writeln!(text, "{name:<26} {passed:>6} {skipped:>7} {failed:>7} {took:>9.1}")
                .expect("a String takes all");
        };
        let mut all = [0; 3];
        for (name, (numbers, took)) in programs {
            line(name, numbers, took);
            all.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
        }
        line("all", all, took);
        for (test, outcome, _) in &self.rows {
            match outcome {
                Outcome::Passed => {}
                Outcome::Skipped(why) => text += &format!("\nskipped {}: {why}", title(test)),
                Outcome::Failed(why) => text += &format!("\nfailed  {}: {why}", title(test)),
            }
        }
        let Count { passed, failed } = self.count();
        text + &format!("\n\n{passed} passed, {failed} failed")
    }
}

/// A test as people name it.
pub(super) fn title(test: &Test) -> String {
    format!("{} {}", test.suite, test.name)
}

/// The sum in the last line of a table.
pub(super) fn sum(line: &str) -> Option<Count> {
    let (passed, failed) = line.trim_end().strip_suffix(" failed")?.split_once(" passed, ")?;
    Some(Count { passed: passed.parse().ok()?, failed: failed.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_what_was_skipped_and_ends_with_the_sum() {
        let mut report = Report::default();
        let mut add = |name: &str, outcome| {
            let test =
                Test { suite: "a::vm".into(), name: name.into(), program: "".into(), directory: "".into() };
            report.add(&test, outcome, Duration::from_secs(1));
        };
        add("boots", Outcome::Passed);
        add("plugs", Outcome::Skipped("no IOMMU".into()));
        add("ends", Outcome::Failed("exit status: 101".into()));
        let table = report.table(Duration::from_secs(4));
        assert!(table.contains("\na::vm                           1       1       1       3.0\n"), "{table}");
        assert!(table.contains("\nskipped a::vm plugs: no IOMMU\n"), "{table}");
        assert!(table.contains("\nfailed  a::vm ends: exit status: 101\n"), "{table}");
        assert_eq!(sum(table.lines().last().unwrap()), Some(Count { passed: 1, failed: 1 }));
        assert_eq!(sum("1 passed"), None);
    }
}
