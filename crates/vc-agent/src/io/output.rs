//! Standard output and standard error as `AsyncRead`.

use std::fmt;
use std::io::Result;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::{CHUNK, Call, io_error};
use crate::{AgentError, ProcessRef, Streams};

/// An output of a process, from where it is read on to its end.
///
/// One read is always under way, so the next bytes travel while those before are used; there are never
/// two, since nothing would keep their order. At most 2 MiB are held here.
///
/// # Cancel safety
/// A dropped read loses nothing. What has been read ahead is lost when the `Output` is dropped.
pub struct Output {
    start: Box<dyn FnMut() -> Call<Vec<u8>> + Send>,
    next: Option<Call<Vec<u8>>>,
    /// The last answer, used up to `used`.
    bytes: Vec<u8>,
    used: usize,
    has_ended: bool,
}

impl Output {
    /// The standard output of `process`.
    pub fn stdout(agent: &Arc<impl Streams + 'static>, process: &ProcessRef) -> Self {
        let (agent, process) = (agent.clone(), process.clone());
        Self::new(move || {
            let (agent, process) = (agent.clone(), process.clone());
            Box::pin(async move { agent.read_stdout(&process, CHUNK).await })
        })
    }

    /// The standard error of `process`.
    pub fn stderr(agent: &Arc<impl Streams + 'static>, process: &ProcessRef) -> Self {
        let (agent, process) = (agent.clone(), process.clone());
        Self::new(move || {
            let (agent, process) = (agent.clone(), process.clone());
            Box::pin(async move { agent.read_stderr(&process, CHUNK).await })
        })
    }

    fn new(start: impl FnMut() -> Call<Vec<u8>> + Send + 'static) -> Self {
        Self { start: Box::new(start), next: None, bytes: Vec::new(), used: 0, has_ended: false }
    }

    /// The answer to the read under way, and the next read started.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<Vec<u8>, AgentError>> {
        let mut read = self.next.take().unwrap_or_else(|| (self.start)());
        let Poll::Ready(answer) = read.as_mut().poll(context) else {
            self.next = Some(read);
            return Poll::Pending;
        };
        if answer.as_ref().is_ok_and(|bytes| !bytes.is_empty()) {
            let mut next = (self.start)();
            // Only polling sends it. It wakes whoever reads now, which does no harm.
            self.next = Some(match next.as_mut().poll(context) {
                Poll::Pending => next,
                Poll::Ready(answer) => Box::pin(std::future::ready(answer)),
            });
        }
        Poll::Ready(answer)
    }
}

impl AsyncRead for Output {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let this = self.get_mut();
        if this.used == this.bytes.len() && !this.has_ended {
            let answer = ready!(this.poll_answer(context));
            this.bytes = answer.map_err(io_error)?;
            this.used = 0;
            this.has_ended = this.bytes.is_empty();
        }
        let taken = buffer.remaining().min(this.bytes.len() - this.used);
        buffer.put_slice(&this.bytes[this.used..this.used + taken]);
        this.used += taken;
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.bytes.len() - self.used;
        f.debug_struct("Output")
            .field("held", &held)
            .field("has_ended", &self.has_ended)
            .finish_non_exhaustive()
    }
}
