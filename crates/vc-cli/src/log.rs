//! What is logged, and where to, at the level that `VC_LOG` asks for.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::failure::Failure;
use crate::timeline::Timeline;

/// Sends events to standard error, and spans to the timeline.
pub(crate) fn to_stderr(timeline: Option<Timeline>) {
    let events = fmt::layer().with_writer(std::io::stderr).without_time().with_filter(filter());
    registry().with(timeline).with(events).init();
}

/// Sends events and panics to a file that only this user can read.
pub(crate) fn to_file(file: &Path) -> Result<(), Failure> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(file);
    let opened = opened.map_err(|error| Failure::step(format!("open the log {}", file.display()), error))?;
    let events =
        fmt::layer().with_ansi(false).with_writer(std::sync::Mutex::new(opened)).with_filter(filter());
    registry().with(events).init();
    // Standard error is the container's.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a defect of vc")));
    Ok(())
}

fn filter() -> EnvFilter {
    EnvFilter::try_from_env("VC_LOG").unwrap_or_else(|_| EnvFilter::new("warn"))
}
