//! The tests that wait for a nested host, and what became of the others. A host takes the next one whenever it is through
//! with one, so that all hosts end together, whatever their tests take.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::integration::plan::Test;
use crate::integration::report::{Outcome, Report, title};

/// What the hosts of a run share.
#[derive(Debug)]
pub(super) struct Queue<'a> {
    tests: &'a [Test],
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Turn>,
    /// By position in the tests.
    outcomes: Vec<Option<(Outcome, Duration)>>,
}

/// A test that a host has taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Counted from one, as lines about tests have it.
    pub(super) number: usize,
    /// Whether a host ended while it ran this test.
    has_lost_a_host: bool,
}

impl<'a> Queue<'a> {
    pub(super) fn new(tests: &'a [Test]) -> Self {
        let waiting = (1..=tests.len()).map(|number| Turn { number, has_lost_a_host: false }).collect();
        let state = Mutex::new(State { waiting, outcomes: vec![None; tests.len()] });
        Self { tests, state }
    }

    /// All tests of the run.
    pub(super) fn tests(&self) -> &'a [Test] {
        self.tests
    }

    /// The test of a turn.
    pub(super) fn test(&self, turn: &Turn) -> &'a Test {
        &self.tests[turn.number - 1]
    }

    /// Whether all tests have been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.state().waiting.is_empty()
    }

    /// Takes the next test.
    pub(super) fn take(&self) -> Option<Turn> {
        self.state().waiting.pop_front()
    }

    /// Notes how a test ended.
    pub(super) fn end(&self, turn: &Turn, outcome: Outcome, took: Duration) {
        self.state().outcomes[turn.number - 1] = Some((outcome, took));
    }

    /// Puts a test back whose host ended, or stood still; the second time it fails. Once says nothing of the test: the kernel
    /// of a host gets stuck now and then.
    pub(super) fn lose(&self, mut turn: Turn, took: Duration) {
        let title = title(self.test(&turn));
        if mem::replace(&mut turn.has_lost_a_host, true) {
            let why = "its nested host ended, or stood still, twice; the last words are above".to_owned();
            self.end(&turn, Outcome::Failed(why), took);
        } else {
            println!("{title} is tried once more");
            self.state().waiting.push_front(turn);
        }
    }

    /// What became of the tests. One that no host was there for has failed.
    pub(super) fn report(&self) -> Report {
        let mut report = Report::default();
        for (test, outcome) in self.tests.iter().zip(&self.state().outcomes) {
            let none = || (Outcome::Failed("no nested host was there for it".into()), Duration::ZERO);
            let (outcome, took) = outcome.clone().unwrap_or_else(none);
            report.add(test, outcome, took);
        }
        report
    }

    /// Each change is whole, so that one that panicked leaves nothing halfway.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::Count;

    fn tests<const N: usize>(names: [&str; N]) -> [Test; N] {
        let test = |name: &str| Test {
            suite: "a::vm".into(),
            name: name.into(),
            program: "".into(),
            directory: "".into(),
        };
        names.map(test)
    }

    #[test]
    fn a_test_has_one_host_after_another_until_it_fails() {
        let tests = tests(["one", "two", "three"]);
        let queue = Queue::new(&tests);
        let took = Duration::from_secs(1);
        let one = queue.take().unwrap();
        let two = queue.take().unwrap();
        assert_eq!((one.number, two.number), (1, 2));
        queue.lose(one, took);
        queue.end(&two, Outcome::Passed, took);
        let one = queue.take().unwrap();
        assert_eq!(queue.test(&one), &tests[0], "before those that have not been tried");
        queue.lose(one, took);
        assert_eq!(queue.take().map(|turn| turn.number), Some(3), "not a third time");
        assert!(queue.is_empty());
        assert_eq!(queue.report().count(), Count { passed: 1, failed: 2 }, "`three` has no outcome");
    }
}
