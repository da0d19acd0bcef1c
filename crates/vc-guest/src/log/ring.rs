//! The latest lines of the log, for a host that may come late or never.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

/// How many bytes are kept; of more, the oldest lines are dropped.
const MAX_BYTES: usize = 256 * 1024;

/// Lines that the host has not read yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogLines(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    kept: Mutex<Kept>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
}

impl LogLines {
    /// Writes the lines to `host` as they come, until it goes away. A line on its way then is lost.
    pub(crate) async fn send(&self, host: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        loop {
            let news = self.0.news.notified();
            let Some(mut line) = self.take() else {
                news.await;
                continue;
            };
            line.push('\n');
            host.write_all(line.as_bytes()).await?;
        }
    }

    pub(super) fn push(&self, line: String) {
        let mut kept = self.lock();
        kept.bytes += line.len();
        kept.lines.push_back(line);
        while kept.bytes > MAX_BYTES {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.len();
        }
        drop(kept);
        self.0.news.notify_one();
    }

    fn take(&self) -> Option<String> {
        let mut kept = self.lock();
        let line = kept.lines.pop_front()?;
        kept.bytes -= line.len();
        Some(line)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<String> {
        self.lock().lines.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn lines_wait_for_the_host_and_go_out_in_order() {
        let lines = LogLines::default();
        lines.push("one".to_owned());
        let (mut host, mut guest) = tokio::io::duplex(64);
        let sender = lines.clone();
        let task = tokio::spawn(async move { sender.send(&mut guest).await });
        lines.push("two".to_owned());
        let mut read = [0; 8];
        host.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"one\ntwo\n");
        drop(host);
        lines.push("three".to_owned());
        assert!(task.await.unwrap().is_err());
    }

    #[test]
    fn of_too_many_lines_the_oldest_go() {
        let lines = LogLines::default();
        for n in 0..40 {
            lines.push(format!("{n:010000}"));
        }
        let all = lines.all();
        assert_eq!(all.len(), MAX_BYTES / 10_000);
        assert!(all.last().unwrap().ends_with("39"));
    }
}
