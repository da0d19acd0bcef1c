//! The point in time after which a wait gives up.

use std::time::{Duration, Instant};

/// A point in time that a caller sets once and that every step below it shares.
///
/// A duration would start anew at each step; a deadline does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// `duration` from now.
    pub fn after(duration: Duration) -> Self {
        let now = Instant::now();
        // A century is far enough for whoever asked for more than the clock can count.
        let century = Duration::from_secs(100 * 365 * 24 * 3600);
        Self(now.checked_add(duration).unwrap_or_else(|| now + century))
    }

    /// The time left; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether the time has passed.
    pub fn is_over(self) -> bool {
        self.remaining().is_zero()
    }

    /// This deadline, or `duration` from now if that is sooner.
    #[must_use]
    pub fn at_most(self, duration: Duration) -> Self {
        self.min(Self::after(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_never_counts_below_zero() {
        let over = Deadline::after(Duration::ZERO);
        assert!(over.is_over());
        assert_eq!(over.remaining(), Duration::ZERO);
        let far = Deadline::after(Duration::MAX);
        assert!(!far.is_over());
        assert!(far.at_most(Duration::ZERO).is_over());
    }
}
