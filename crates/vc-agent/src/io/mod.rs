//! The standard streams of a process as tokio's `AsyncRead` and `AsyncWrite`, and files copied from one.
//!
//! Each stream ends by itself. To shut [`Stdin`] down gives the process its end of file and leaves its
//! outputs alone; an [`Output`] ends when nobody in the guest can write to it any more.

mod copy;
mod output;
mod stdin;

pub use copy::{CopyError, copy_file};
pub use output::Output;
pub use stdin::Stdin;

use std::future::Future;
use std::io::{Error, ErrorKind};
use std::pin::Pin;

use crate::AgentError;

/// The most bytes that are asked for, or sent, at once.
const CHUNK: u32 = 1024 * 1024;

type Call<T> = Pin<Box<dyn Future<Output = Result<T, AgentError>> + Send>>;

/// The error of the port as one of a stream; the former is its source.
fn io_error(error: AgentError) -> Error {
    let kind = match &error {
        AgentError::StreamClosed => ErrorKind::BrokenPipe,
        AgentError::Disconnected { .. } | AgentError::Unreachable { .. } => ErrorKind::ConnectionReset,
        AgentError::Deadline { .. } => ErrorKind::TimedOut,
        AgentError::NoSuchProcess { .. } | AgentError::NoSuchContainer { .. } => ErrorKind::NotFound,
        AgentError::Malformed { .. } => ErrorKind::InvalidData,
        AgentError::Unimplemented { .. } => ErrorKind::Unsupported,
        _ => ErrorKind::Other,
    };
    Error::new(kind, error)
}
