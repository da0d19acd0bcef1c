//! Figures of several rounds, and how two of them compare.

/// One figure, once for each round.
#[derive(Debug, Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, figure: f64) {
        self.0.push(figure);
        self.0.sort_by(f64::total_cmp);
    }

    /// The one in the middle, the lower of two.
    pub(crate) fn median(&self) -> f64 {
        self.0.get(self.0.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
    }

    fn least(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }

    fn most(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }
}

/// Prints two rows, the second as a multiple of the first.
pub(crate) fn compare(unit: &str, reference: (&str, &Series), subject: (&str, &Series)) {
    for (what, series) in [reference, subject] {
        let (median, least, most) = (series.median(), series.least(), series.most());
        println!("{what:<48} {median:>9.2} {least:>9.2} {most:>9.2} {unit}");
    }
    println!("{:<48} {:>8.2}x", "  ratio of the medians", subject.1.median() / reference.1.median());
}

pub(crate) fn heading(what: &str, rounds: usize) {
    println!(
        "\n{what}, {rounds} rounds: {:>width$}",
        "median     least      most",
        width = 60 - what.len().min(58)
    );
}
