//! Times measured in several rounds.

use std::time::Duration;

/// One figure, once for each round.
#[derive(Debug, Default)]
pub(super) struct Series(Vec<Duration>);

impl Series {
    /// Adds a round.
    pub(super) fn push(&mut self, time: Duration) {
        self.0.push(time);
        self.0.sort();
    }

    /// The one in the middle, the lower of two; zero before the first round.
    pub(super) fn median(&self) -> Duration {
        let middle = self.0.len().saturating_sub(1) / 2;
        self.0.get(middle).copied().unwrap_or_default()
    }

    /// The one nearest to a machine that does nothing else.
    pub(super) fn least(&self) -> Duration {
        self.0.first().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        let series = |times: &[u64]| {
            let mut series = Series::default();
            times.iter().for_each(|time| series.push(Duration::from_secs(*time)));
            (series.median().as_secs(), series.least().as_secs())
        };
        assert_eq!(series(&[]), (0, 0));
        assert_eq!(series(&[5]), (5, 5));
        assert_eq!(series(&[9, 1, 5]), (5, 1));
        assert_eq!(series(&[4, 3, 2, 1]), (2, 1));
    }
}
