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

/// What is logged when nobody says otherwise.
pub(crate) const USUAL: &str = "warn";

/// The level for those who want more, and for all others.
pub(crate) fn level(debug: bool) -> &'static str {
    if debug { "debug" } else { USUAL }
}

/// Sends events to standard error, those of the level `usual` if `VC_LOG` says nothing, and spans to the timeline.
pub(crate) fn to_stderr(timeline: Option<Timeline>, usual: &str) {
    let events = fmt::layer().with_writer(std::io::stderr).without_time().with_filter(filter(usual));
    registry().with(timeline).with(events).init();
}

/// Sends events and panics to a file that only this user can read.
pub(crate) fn to_file(file: &Path, usual: &str) -> Result<(), Failure> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(file);
    let opened = opened.map_err(|error| Failure::step(format!("open the log {}", file.display()), error))?;
    let events =
        fmt::layer().with_ansi(false).with_writer(std::sync::Mutex::new(opened)).with_filter(filter(usual));
    registry().with(events).init();
    // Standard error is the container's.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a defect of vc")));
    Ok(())
}

fn filter(usual: &str) -> EnvFilter {
    EnvFilter::try_from_env("VC_LOG").unwrap_or_else(|_| EnvFilter::new(usual))
}
