//! The host's connections, counted, so that the last answer is sent before the machine ends.

use std::io::Result;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// Counts open connections.
#[derive(Clone, Debug)]
pub struct Connections(watch::Sender<usize>);

impl Default for Connections {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Connections {
    /// Counts `stream` until it is dropped.
    pub fn count<S>(&self, stream: S) -> Counted<S> {
        self.0.send_modify(|open| *open += 1);
        Counted { stream, open: self.0.clone() }
    }

    /// Returns once no connection is open.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn all_closed(&self) {
        // Fails only without senders, and `self` is one.
        let _ = self.0.subscribe().wait_for(|open| *open == 0).await;
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub struct Counted<S> {
    stream: S,
    open: watch::Sender<usize>,
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        self.open.send_modify(|open| *open -= 1);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
