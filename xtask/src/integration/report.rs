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

/// The figures of a line of the table: passed, skipped, failed, left out.
type Figures = [usize; 4];

impl Report {
    /// Adds the outcome of a test.
    pub(super) fn add(&mut self, test: &Test, outcome: Outcome, took: Duration) {
        self.rows.push((test.clone(), outcome, took));
    }

    /// Whether no test has passed or failed.
    pub(super) fn is_empty(&self) -> bool {
        self.count() == Count::default()
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
    /// last line. `left_out` has how many tests of a program were not to run.
    pub(super) fn table(&self, left_out: &BTreeMap<String, usize>, took: Duration) -> String {
        let mut programs: BTreeMap<&str, (Figures, Duration)> = BTreeMap::new();
        for (test, outcome, took) in &self.rows {
            let (figures, sum) = programs.entry(&test.suite).or_default();
            let column = match outcome {
                Outcome::Passed => 0,
                Outcome::Skipped(_) => 1,
                Outcome::Failed(_) => 2,
            };
            figures[column] += 1;
            *sum += *took;
        }
        for (program, number) in left_out {
            programs.entry(program).or_default().0[3] = *number;
        }
        let mut text =
            String::from("\ntests                      passed skipped  failed left out   seconds\n");
        let mut line = |name: &str, [passed, skipped, failed, left_out]: Figures, took: Duration| {
            let took = took.as_secs_f32();
            writeln!(text, "{name:<26} {passed:>6} {skipped:>7} {failed:>7} {left_out:>8} {took:>9.1}")
                .expect("a String takes all");
        };
        let mut all = Figures::default();
        for (name, (figures, took)) in programs {
            line(name, figures, took);
            all.iter_mut().zip(figures).for_each(|(sum, number)| *sum += number);
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

/// What is written when the test with this number has ended, of so many.
pub(super) fn line((number, of): (usize, usize), test: &Test, outcome: &Outcome, took: Duration) -> String {
    let (word, why) = match outcome {
        Outcome::Passed => ("passed", None),
        Outcome::Skipped(why) => ("skipped", Some(why)),
        Outcome::Failed(why) => ("FAILED", Some(why)),
    };
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    format!("[{number}/{of}] {word} {} ({:.1} s){why}", title(test), took.as_secs_f32())
}

/// What [`line()`] wrote about this test; `None` for any other line.
pub(super) fn read_line(
    text: &str,
    (number, of): (usize, usize),
    test: &Test,
) -> Option<(Outcome, Duration)> {
    let (word, text) = text.strip_prefix(&format!("[{number}/{of}] "))?.split_once(' ')?;
    let text = text.strip_prefix(&title(test))?.strip_prefix(" (")?;
    let (seconds, why) = text.split_once(" s)")?;
    let took = Duration::try_from_secs_f32(seconds.parse().ok()?).ok()?;
    let why = why.strip_prefix(": ").map(str::to_owned);
    let outcome = match (word, why) {
        ("passed", None) => Outcome::Passed,
        ("skipped", Some(why)) => Outcome::Skipped(why),
        ("FAILED", Some(why)) => Outcome::Failed(why),
        _ => return None,
    };
    Some((outcome, took))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str) -> Test {
        Test { suite: "a::vm".into(), name: name.into(), program: "".into(), directory: "".into() }
    }

    #[test]
    fn a_table_tells_what_was_skipped_and_ends_with_the_sum() {
        let mut report = Report::default();
        let mut add = |name: &str, outcome| report.add(&test(name), outcome, Duration::from_secs(1));
        add("boots", Outcome::Passed);
        add("plugs", Outcome::Skipped("no IOMMU".into()));
        add("ends", Outcome::Failed("exit status: 101".into()));
        let left_out = [("a::vm".to_owned(), 2), ("b::vm".to_owned(), 30)].into();
        let table = report.table(&left_out, Duration::from_secs(4));
        assert!(
            table.contains("\na::vm                           1       1       1        2       3.0\n"),
            "{table}"
        );
        assert!(
            table.contains("\nb::vm                           0       0       0       30       0.0\n"),
            "{table}"
        );
        assert!(
            table.contains("\nall                             1       1       1       32       4.0\n"),
            "{table}"
        );
        assert!(table.contains("\nskipped a::vm plugs: no IOMMU\n"), "{table}");
        assert!(table.contains("\nfailed  a::vm ends: exit status: 101\n"), "{table}");
        assert_eq!(table.lines().last(), Some("1 passed, 1 failed"));
    }

    #[test]
    fn a_line_about_a_test_is_read_as_it_was_written() {
        let test = test("boots");
        let took = Duration::from_millis(1500);
        for outcome in [
            Outcome::Passed,
            Outcome::Skipped("no KVM (no /dev/kvm): none".into()),
            Outcome::Failed("it was ended after 300 s".into()),
        ] {
            let text = line((3, 12), &test, &outcome, took);
            assert_eq!(read_line(&text, (3, 12), &test), Some((outcome, took)), "{text}");
            assert_eq!(read_line(&text, (4, 12), &test), None, "that is another test's");
        }
        for other in ["", "[3/12] ", "[3/12] passed a::vm", "[3/12] passed a::vm boots (x s)", "passed"] {
            assert_eq!(read_line(other, (3, 12), &test), None, "{other}");
        }
    }
}
