//! Standard input as `AsyncWrite`.

use std::fmt;
use std::io::Result;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use vc_types::Deadline;

use super::{CHUNK, Call, io_error};
use crate::{ProcessRef, Streams};

/// The standard input of a process.
///
/// A write returns once its bytes are on their way, a flush once the process's pipe has them; that they
/// cannot be delivered is the error of a later write or flush. To shut it down flushes, and gives the
/// process its end of file. At most 1 MiB is held here.
///
/// # Cancel safety
/// A dropped write has written nothing or all that it would have returned. Dropping the `Stdin` leaves
/// the stream open, as another may go on to write.
pub struct Stdin<A> {
    agent: Arc<A>,
    process: ProcessRef,
    close_within: Duration,
    under_way: Option<Call<()>>,
    is_closed: bool,
}

impl<A: Streams + 'static> Stdin<A> {
    /// The standard input of `process`; closing it may take as long as `close_within`.
    pub fn new(agent: &Arc<A>, process: &ProcessRef, close_within: Duration) -> Self {
        Self {
            agent: agent.clone(),
            process: process.clone(),
            close_within,
            under_way: None,
            is_closed: false,
        }
    }

    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(call) = &mut self.under_way else { return Poll::Ready(Ok(())) };
        let result = ready!(call.as_mut().poll(context));
        self.under_way = None;
        Poll::Ready(result.map_err(io_error))
    }
}

impl<A: Streams + 'static> AsyncWrite for Stdin<A> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_idle(context))?;
        let length = bytes.len().min(usize::try_from(CHUNK).unwrap_or(usize::MAX));
        if length == 0 {
            return Poll::Ready(Ok(0));
        }
        let (agent, process, data) = (this.agent.clone(), this.process.clone(), bytes[..length].to_vec());
        let mut call: Call<()> = Box::pin(async move {
            let mut rest = &data[..];
            while !rest.is_empty() {
                let taken = agent.write_stdin(&process, rest).await?;
                rest = rest.get(taken..).unwrap_or_default();
            }
            Ok(())
        });
        // The first poll sends it.
        match call.as_mut().poll(context) {
            Poll::Ready(result) => result.map_err(io_error)?,
            Poll::Pending => this.under_way = Some(call),
        }
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.get_mut().poll_idle(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_idle(context))?;
        if this.is_closed {
            return Poll::Ready(Ok(()));
        }
        let (agent, process) = (this.agent.clone(), this.process.clone());
        let deadline = Deadline::after(this.close_within);
        this.under_way = Some(Box::pin(async move { agent.close_stdin(&process, deadline).await }));
        this.is_closed = true;
        this.poll_idle(context)
    }
}

impl<A> fmt::Debug for Stdin<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdin")
            .field("process", &self.process)
            .field("is_closed", &self.is_closed)
            .finish_non_exhaustive()
    }
}
