//! What is logged, and where to, at the level that `VC_LOG` asks for.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::filter::Targets;
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
    let writer = Mutex::new(Bounded { file: opened, written: 0, most: MOST });
    let events = fmt::layer().with_ansi(false).with_writer(writer).with_filter(filter(usual));
    registry().with(events).init();
    // Standard error is the container's.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a defect of vc")));
    Ok(())
}

/// How long the file of a log may get, in bytes. A guest can have an owner say as much as it likes.
const MOST: usize = 1 << 20;

/// What stands where the lines before were.
const DROPPED: &[u8] = b"(what was logged before is gone: the log was full)\n";

/// A file that starts anew when it is full.
struct Bounded {
    file: File,
    written: usize,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.written.saturating_add(line.len()) > self.most && self.written > 0 {
            self.file.set_len(0)?;
            self.file.write_all(DROPPED)?;
            self.written = DROPPED.len();
        }
        let written = self.file.write(line)?;
        self.written += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Levels by target. Filters that look into fields would keep a machine for regular expressions in each owner.
fn filter(usual: &str) -> Targets {
    let wanted = std::env::var("VC_LOG").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or_else(|| usual.parse().expect("a level"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_never_grows_beyond_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let mut log = Bounded { file, written: 0, most: 100 };
        for number in 0..50 {
            log.write_all(format!("line {number}\n").as_bytes()).unwrap();
            assert!(std::fs::metadata(&path).unwrap().len() <= 100);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.as_bytes().starts_with(DROPPED) && text.ends_with("line 49\n"), "{text}");
    }
}
