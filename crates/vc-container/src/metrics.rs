//! How often each step was made and how long it took, for any front end to export.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::{Instrument, Span};

/// The steps of one kind so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepMetrics {
    /// How many ended well.
    pub succeeded: u64,
    /// How many failed.
    pub failed: u64,
    /// How long all of them took together.
    pub total: Duration,
    /// How long the longest took.
    pub longest: Duration,
}

/// The metrics of a sandbox: one entry for each kind of step. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(Arc<Mutex<BTreeMap<&'static str, StepMetrics>>>);

impl Metrics {
    pub(crate) fn snapshot(&self) -> BTreeMap<&'static str, StepMetrics> {
        self.0.lock().expect("nothing panics while it holds the metrics").clone()
    }

    /// Makes one step, in a span of its own.
    pub(crate) async fn step<T, E>(
        &self,
        kind: &'static str,
        span: Span,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let began = Instant::now();
        let result = step.instrument(span).await;
        let took = began.elapsed();
        let mut all = self.0.lock().expect("nothing panics while it holds the metrics");
        let metrics = all.entry(kind).or_default();
        *(if result.is_ok() { &mut metrics.succeeded } else { &mut metrics.failed }) += 1;
        metrics.total += took;
        metrics.longest = metrics.longest.max(took);
        result
    }
}
