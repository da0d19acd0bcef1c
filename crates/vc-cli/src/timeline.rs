//! When each phase began and how long it took, from the spans and milestones of the crates below.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Collects phases. Clones are the same timeline.
#[derive(Clone)]
pub(crate) struct Timeline {
    start: Instant,
    rows: Arc<Mutex<Vec<Row>>>,
}

struct Row {
    name: String,
    at: Duration,
    took: Option<Duration>,
}

/// When a span was opened, kept with the span.
struct Opened(Instant);

impl Timeline {
    /// A timeline whose zero is `start`.
    pub(crate) fn starting(start: Instant) -> Self {
        Self { start, rows: Arc::default() }
    }

    /// Prints it to standard error.
    pub(crate) fn print(&self) {
        let mut rows = self.rows();
        rows.sort_by_key(|row| row.at);
        // Where it cannot be printed, nobody reads it.
        let _ = std::io::stderr().write_all(table(&rows, self.start.elapsed()).as_bytes());
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.rows.lock().expect("nothing panics while it holds the rows")
    }
}

fn table(rows: &[Row], end: Duration) -> String {
    let mut text = format!("{:<20}{:>10}{:>10}\n", "phase", "at ms", "took ms");
    let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1000.0);
    for row in rows {
        let took = row.took.map(ms).unwrap_or_default();
        let _ = writeln!(text, "{:<20}{:>10}{:>10}", row.name, ms(row.at), took);
    }
    let _ = writeln!(text, "{:<20}{:>10}", "end", ms(end));
    text
}

/// Phases are the spans at level INFO of this project's crates.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    *metadata.level() == Level::INFO
        && (metadata.target() == "vc"
            || metadata.target().starts_with("vc_")
            || metadata.target().starts_with("vc::"))
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Timeline {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id).filter(|_| is_ours(attributes.metadata())) {
            span.extensions_mut().insert(Opened(Instant::now()));
        }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut milestone = Milestone(None);
        event.record(&mut milestone);
        if let Some(name) = milestone.0.filter(|_| is_ours(event.metadata())) {
            self.rows().push(Row { name, at: self.start.elapsed(), took: None });
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(opened) = span.extensions().get::<Opened>().map(|opened| opened.0) else { return };
        let row = Row { name: span.name().to_owned(), at: opened - self.start, took: Some(opened.elapsed()) };
        self.rows().push(row);
    }
}

/// The value of an event's field `milestone`.
struct Milestone(Option<String>);

impl Visit for Milestone {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "milestone" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn spans_and_milestones_become_rows() {
        let timeline = Timeline::starting(Instant::now());
        let subscriber = tracing_subscriber::registry().with(timeline.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("boot").in_scope(|| tracing::info!(milestone = "first output", "spoke"));
            tracing::debug_span!("detail").in_scope(|| tracing::info!("no milestone"));
            tracing::info_span!(target: "hyper", "other").in_scope(|| ());
        });
        let mut names: Vec<_> =
            timeline.rows().iter().map(|row| (row.name.clone(), row.took.is_some())).collect();
        names.sort();
        assert_eq!(names, [("boot".to_owned(), true), ("first output".to_owned(), false)]);
        let text = table(&timeline.rows(), Duration::from_millis(1500));
        assert!(text.ends_with("end                     1500.0\n"), "{text}");
    }
}
