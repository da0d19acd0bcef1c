//! The last bytes of an endless text, kept for error messages.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The end of what was read so far, at most a fixed number of bytes.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    most: usize,
    kept: Arc<Mutex<VecDeque<u8>>>,
}

impl Tail {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, kept: Arc::default() }
    }

    /// Reads `source` to its end; `on_first` is called when the first byte arrives.
    pub(crate) async fn follow(self, mut source: impl AsyncRead + Unpin, on_first: impl FnOnce() + Send) {
        let mut chunk = [0; 4096];
        let mut on_first = Some(on_first);
        while let Ok(read @ 1..) = source.read(&mut chunk).await {
            if let Some(tell) = on_first.take() {
                tell();
            }
            self.push(&chunk[..read]);
        }
    }

    /// What is kept, from the first whole line on when something was dropped.
    pub(crate) fn text(&self) -> String {
        let kept = self.kept();
        let bytes: Vec<u8> = kept.iter().copied().collect();
        let start = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(newline) if bytes.len() >= self.most => newline + 1,
            _ => 0,
        };
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }

    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut kept = self.kept();
        kept.extend(bytes);
        let surplus = kept.len().saturating_sub(self.most);
        kept.drain(..surplus);
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.kept.lock().expect("nothing panics while it holds the tail")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_end_is_kept() {
        let tail = Tail::new(16);
        let mut calls = 0;
        tail.clone().follow(&b"first line\nsecond\nthird\n"[..], || calls += 1).await;
        assert_eq!(calls, 1);
        assert_eq!(tail.text(), "second\nthird\n");
        let short = Tail::new(16);
        short.push(b"whole\n");
        assert_eq!(short.text(), "whole\n");
    }
}
