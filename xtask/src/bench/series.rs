//! Times measured in several rounds.

use std::time::Duration;

/// One figure, once for each round.
#[derive(Debug, Default)]
pub(super) struct Series(Vec<Duration>);

impl Series {
    /// Adds a round.
    pub(super) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The one in the middle, the lower of two; zero before the first round.
    pub(super) fn median(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted.get(middle(sorted.len())).copied().unwrap_or_default()
    }

    /// The one nearest to a machine that does nothing else.
    pub(super) fn least(&self) -> Duration {
        self.0.iter().min().copied().unwrap_or_default()
    }

    /// What it is to `base`: the median of the ratios of each round. What slows a round down, slows both down.
    pub(super) fn to(&self, base: &Self) -> f64 {
        let rounds = self.0.iter().zip(&base.0);
        let mut ratios: Vec<f64> = rounds.map(|(own, base)| own.as_secs_f64() / base.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get(middle(ratios.len())).copied().unwrap_or(f64::NAN)
    }
}

fn middle(length: usize) -> usize {
    length.saturating_sub(1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_the_rounds_and_not_of_the_medians() {
        let series = |times: &[u64]| Series(times.iter().copied().map(Duration::from_secs).collect());
        // Twice as long in each round, of which one was slow.
        assert!((series(&[2, 20, 4]).to(&series(&[1, 10, 2])) - 2.0).abs() < 1e-9);
        assert!((series(&[1, 9, 3]).to(&series(&[1, 3, 9])) - 1.0).abs() < 1e-9);
        assert!(series(&[]).to(&series(&[])).is_nan());
    }

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
