//! The standard streams of a process.

use std::future::Future;

use vc_types::Deadline;

use crate::{AgentError, ProcessRef};

/// The standard streams of a process.
///
/// Reads and writes have no deadline: a stream may be idle for ever. Each of the three ends by itself:
/// to close the standard input leaves the outputs alone. With the feature `io` they are also an
/// `AsyncWrite` and two `AsyncRead`s.
///
/// # Cancel safety
/// A dropped read may lose the bytes it was about to return, a dropped write may have written.
pub trait Streams: Send + Sync {
    /// Writes some of `data` to the standard input; returns how many bytes were taken: at least 1,
    /// unless `data` is empty.
    ///
    /// # Errors
    /// [`AgentError::StreamClosed`] when nobody reads any more; any other [`AgentError`].
    fn write_stdin(
        &self,
        process: &ProcessRef,
        data: &[u8],
    ) -> impl Future<Output = Result<usize, AgentError>> + Send;

    /// Ends the standard input: the process reads what was written, then end of file.
    ///
    /// # Errors
    /// Any [`AgentError`].
    fn close_stdin(
        &self,
        process: &ProcessRef,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// Reads at most `most` bytes (at least 1) of the standard output; empty means end of file.
    ///
    /// # Errors
    /// Any [`AgentError`]; [`AgentError::Unsendable`] when `most` is 0.
    fn read_stdout(
        &self,
        process: &ProcessRef,
        most: u32,
    ) -> impl Future<Output = Result<Vec<u8>, AgentError>> + Send;

    /// Reads at most `most` bytes (at least 1) of the standard error; empty means end of file.
    ///
    /// # Errors
    /// As of [`Streams::read_stdout`].
    fn read_stderr(
        &self,
        process: &ProcessRef,
        most: u32,
    ) -> impl Future<Output = Result<Vec<u8>, AgentError>> + Send;
}
