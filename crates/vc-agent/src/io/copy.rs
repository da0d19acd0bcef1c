//! A whole file copied into the guest, piece by piece.

use std::future::poll_fn;
use std::pin::Pin;

use tokio::io::{AsyncRead, ReadBuf};
use vc_types::Deadline;

use crate::{AgentError, CopyFile, FileContent, Volumes};

/// Why a file was not copied. Pieces of it may be in the guest, not yet in its place.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The agent did not take a piece.
    #[error("the guest did not take {path}")]
    Agent {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        error: AgentError,
    },
    /// What is to be copied cannot be read.
    #[error("cannot read what is to become {path} in the guest")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        error: std::io::Error,
    },
    /// There is less than was said.
    #[error("what is to become {path} in the guest ends after {read} of {size} bytes")]
    Short {
        /// The file.
        path: String,
        /// How much there is.
        read: u64,
        /// How much was said.
        size: u64,
    },
}

/// Copies `size` bytes of `source` into the guest's file that `file` describes; its content is not used.
///
/// Never holds more than one piece of [`FileContent::MAX_PIECE`] bytes. Reads no more than `size`.
///
/// # Errors
/// [`CopyError`] at the first piece that fails.
///
/// # Cancel safety
/// Dropping the future leaves an unfinished copy in the guest, which the next one replaces.
pub async fn copy_file(
    agent: &impl Volumes,
    file: &CopyFile<'_>,
    size: u64,
    source: &mut (impl AsyncRead + Unpin + Send),
    deadline: Deadline,
) -> Result<(), CopyError> {
    let path = || file.path.to_string();
    let mut piece = Vec::new();
    let mut offset = 0;
    loop {
        let left = usize::try_from(size - offset).unwrap_or(usize::MAX);
        piece.resize(left.min(FileContent::MAX_PIECE), 0);
        let length =
            fill(source, &mut piece).await.map_err(|error| CopyError::Read { path: path(), error })?;
        if length < piece.len() {
            let read = offset + bytes(length);
            return Err(CopyError::Short { path: path(), read, size });
        }
        let content = FileContent::Regular { size, offset, data: &piece };
        let request = CopyFile { content, ..file.clone() };
        let copied = agent.copy_file(&request, deadline).await;
        copied.map_err(|error| CopyError::Agent { path: path(), error })?;
        offset += bytes(length);
        if offset == size {
            return Ok(());
        }
    }
}

fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Reads until `buffer` is full or `source` ends; returns how much there is.
async fn fill(source: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut buffer = ReadBuf::new(buffer);
    while buffer.remaining() > 0 {
        let before = buffer.filled().len();
        poll_fn(|context| Pin::new(&mut *source).poll_read(context, &mut buffer)).await?;
        if buffer.filled().len() == before {
            break;
        }
    }
    Ok(buffer.filled().len())
}
