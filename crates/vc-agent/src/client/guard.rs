//! Watches what the guest sends before ttrpc reads it: the guest is hostile.

use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use ttrpc::proto::{MESSAGE_HEADER_LENGTH, MESSAGE_TYPE_RESPONSE, MessageHeader};

use super::MAX_CHUNK;

/// The longest frame accepted, in bytes: a full chunk and what is around it, or a small answer with a long
/// error text.
///
/// ttrpc itself takes 4 MiB, which a hostile guest can fill with fields that decode to forty times
/// their size.
pub(super) const MAX_FRAME: u32 = MAX_CHUNK + 64 * 1024;

/// Why a connection ended, as far as this end can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The peer went away, or the connection was closed here.
    Closed,
    /// The peer sent what no agent sends.
    Violation(String),
}

/// A stream that ends at the first frame that is too long or no response.
///
/// ttrpc would skip such a frame and report it as a status of the agent's.
#[derive(Debug)]
pub(super) struct Guard<S> {
    stream: S,
    header: [u8; MESSAGE_HEADER_LENGTH],
    /// How many bytes of `header` are known.
    known: usize,
    /// How many bytes of the frame's body are still to come.
    body: usize,
    end: watch::Sender<Option<End>>,
}

impl<S> Guard<S> {
    /// Guards `stream`; the receiver learns why it ended.
    pub(super) fn new(stream: S) -> (Self, watch::Receiver<Option<End>>) {
        let (end, ended) = watch::channel(None);
        (Self { stream, header: [0; MESSAGE_HEADER_LENGTH], known: 0, body: 0, end }, ended)
    }

    fn check(&mut self, mut bytes: &[u8]) -> std::result::Result<(), String> {
        while !bytes.is_empty() {
            if self.body > 0 {
                let taken = self.body.min(bytes.len());
                self.body -= taken;
                bytes = &bytes[taken..];
                continue;
            }
            let taken = bytes.len().min(MESSAGE_HEADER_LENGTH - self.known);
            self.header[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
            self.known += taken;
            bytes = &bytes[taken..];
            if self.known == MESSAGE_HEADER_LENGTH {
                self.known = 0;
                self.body = body_length(&MessageHeader::from(self.header))?;
            }
        }
        Ok(())
    }

    /// Notes the first reason only: what follows is its consequence.
    fn end(&self, reason: End) {
        self.end.send_if_modified(|end| end.is_none() && end.replace(reason).is_none());
    }

    fn note_failure<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.end(End::Closed);
        }
        result
    }
}

fn body_length(header: &MessageHeader) -> std::result::Result<usize, String> {
    if header.length > MAX_FRAME {
        return Err(format!("a frame of {} bytes; at most {MAX_FRAME} are accepted", header.length));
    }
    if header.type_ != MESSAGE_TYPE_RESPONSE {
        return Err(format!("a frame of type {}, which is no response", header.type_));
    }
    usize::try_from(header.length).map_err(|error| error.to_string())
}

impl<S> Drop for Guard<S> {
    fn drop(&mut self) {
        self.end(End::Closed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut this.stream).poll_read(context, buffer));
        this.note_failure(read)?;
        if buffer.filled().len() == before && buffer.remaining() > 0 {
            this.end(End::Closed);
        }
        let checked = this.check(&buffer.filled()[before..]);
        Poll::Ready(checked.map_err(|violation| {
            this.end(End::Violation(violation.clone()));
            Error::new(ErrorKind::InvalidData, violation)
        }))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes));
        Poll::Ready(this.note_failure(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let flushed = ready!(Pin::new(&mut this.stream).poll_flush(context));
        Poll::Ready(this.note_failure(flushed))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
