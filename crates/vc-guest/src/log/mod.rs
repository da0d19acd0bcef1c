//! The agent's log: one structured line per event, on the console or to the host.

mod json;
mod ring;

pub(crate) use ring::LogLines;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Mutex;
use tracing::Level;
use tracing_subscriber::layer::SubscriberExt;

/// Logs events up to `level`. With `to_host` the lines are kept for the host, who comes for them by vsock;
/// otherwise they go to `/dev/console`, or to the kernel's log where there is no console.
///
/// A console that refuses bytes loses them; it never stops or ends the agent.
pub(crate) fn start_log(level: Level, to_host: bool) -> Option<LogLines> {
    let level = tracing::level_filters::LevelFilter::from_level(level);
    if to_host {
        let lines = LogLines::default();
        let subscriber = tracing_subscriber::registry().with(level).with(json::Json(lines.clone()));
        // Fails only when a log was started before, and then that one stays.
        let _ = tracing::subscriber::set_global_default(subscriber);
        return Some(lines);
    }
    let open = |path| OpenOptions::new().write(true).open(path).ok();
    let file = open("/dev/console").or_else(|| open("/dev/kmsg"))?;
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(Mutex::new(Forgiving(file)))
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
    None
}

/// The error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

/// Swallows write errors: a serial port without hardware answers EIO.
struct Forgiving(File);

impl Write for Forgiving {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
