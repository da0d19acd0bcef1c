//! What is logged, and where to: standard error, at the level that `VC_LOG` asks for.

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::timeline::Timeline;

/// Sends events to standard error, and spans to the timeline.
pub(crate) fn init(timeline: Option<Timeline>) {
    let filter = EnvFilter::try_from_env("VC_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let events = fmt::layer().with_writer(std::io::stderr).without_time().with_filter(filter);
    registry().with(timeline).with(events).init();
}
