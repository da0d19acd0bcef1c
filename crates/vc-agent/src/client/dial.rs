//! One attempt to reach an agent.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_vsock::{VsockAddr, VsockStream};
use vc_types::{AgentAddress, VsockPort};

use super::link::Link;

/// The longest answer to `CONNECT`, in bytes. `OK 4294967295` has 13.
const MAX_ANSWER: usize = 32;

/// Connects to `address` once.
///
/// # Cancel safety
/// Dropping the future closes what was opened.
pub(super) async fn dial(address: &AgentAddress) -> Result<Link> {
    match address {
        AgentAddress::Vsock { cid, port } => {
            Ok(Link::over(VsockStream::connect(VsockAddr::new(cid.0, port.0)).await?))
        }
        AgentAddress::HybridVsock { socket, port } => {
            Ok(Link::over(through_hybrid_vsock(socket.as_path(), *port).await?))
        }
        AgentAddress::Unix { socket } => Ok(Link::over(UnixStream::connect(socket.as_path()).await?)),
    }
}

/// Has a vsock device in user space connect to `port`: `CONNECT 1024\n` is answered by `OK n\n` once
/// somebody in the guest listens there, and by the end of the stream before that.
async fn through_hybrid_vsock(socket: &Path, port: VsockPort) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("CONNECT {}\n", port.0).as_bytes()).await?;
    let mut answer = Vec::new();
    // Byte by byte, as whatever follows the line belongs to the agent.
    while answer.last() != Some(&b'\n') && answer.len() < MAX_ANSWER {
        answer.push(stream.read_u8().await?);
    }
    let accepted = answer.strip_prefix(b"OK ").and_then(|rest| rest.strip_suffix(b"\n"));
    if !accepted.is_some_and(|port| !port.is_empty() && port.iter().all(u8::is_ascii_digit)) {
        let answer = String::from_utf8_lossy(&answer);
        let what = format!("{} answers CONNECT with {answer:?}: no vsock device", socket.display());
        return Err(Error::new(ErrorKind::InvalidData, what));
    }
    Ok(stream)
}
