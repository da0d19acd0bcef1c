//! Conversations in both directions at once: frames, and the descriptors that come along with them.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::protocol::{checked, frame};

/// How long the other side may take to read what it is sent.
const SEND: Duration = Duration::from_secs(10);

/// As many streams as a process has.
const MOST_FILES: usize = 3;

/// Reads one frame.
///
/// # Cancel safety
/// What was read of the frame is lost.
pub(crate) async fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut files = Vec::new();
    let mut length = [0; 4];
    fill(stream, &mut length, &mut files).await?;
    let mut json = vec![0; checked(u32::from_be_bytes(length))?];
    fill(stream, &mut json, &mut files).await?;
    Ok((serde_json::from_slice(&json)?, files))
}

async fn fill(stream: &UnixStream, mut rest: &mut [u8], files: &mut Vec<OwnedFd>) -> io::Result<()> {
    while !rest.is_empty() {
        let read = stream.async_io(Interest::READABLE, || receive_some(stream, rest, files)).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        rest = &mut rest[read..];
    }
    Ok(())
}

fn receive_some(stream: &UnixStream, buffer: &mut [u8], files: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            files.extend(more);
        }
    }
    Ok(received.bytes)
}

/// Writes one frame.
pub(crate) async fn send(stream: &UnixStream, value: &impl Serialize) -> io::Result<()> {
    let frame = frame(value)?;
    let write = async {
        let mut rest = &*frame;
        while !rest.is_empty() {
            let written = stream.async_io(Interest::WRITABLE, || stream.try_write(rest)).await?;
            rest = &rest[written..];
        }
        Ok(())
    };
    tokio::time::timeout(SEND, write).await?
}
