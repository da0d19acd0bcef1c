//! How often each step was made and how long it took, for any front end to export.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tracing::{Instrument as _, Span};

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

    /// Makes one step, which begins now, in a span of its own.
    // Not an async function: that would hold the step twice, as what it was given and as what it waits for.
    pub(crate) fn step<T, E>(
        &self,
        kind: &'static str,
        span: Span,
        step: impl Future<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<T, E>> {
        let began = Instant::now();
        step.instrument(span).inspect(move |result| self.count(kind, result.is_ok(), began.elapsed()))
    }

    fn count(&self, kind: &'static str, succeeded: bool, took: Duration) {
        let mut all = self.0.lock().expect("nothing panics while it holds the metrics");
        let metrics = all.entry(kind).or_default();
        *(if succeeded { &mut metrics.succeeded } else { &mut metrics.failed }) += 1;
        metrics.total += took;
        metrics.longest = metrics.longest.max(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_held_once() {
        let step = async {
            let held = [0_u8; 10_000];
            std::future::pending::<()>().await;
            Ok::<_, ()>(held)
        };
        let (least, metrics) = (size_of_val(&step), Metrics::default());
        let size = size_of_val(&metrics.step("step", Span::none(), step));
        assert!(size < least + 200, "{size} bytes around {least}");
    }
}
