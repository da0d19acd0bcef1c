//! A command's side of the conversation with an owner.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::protocol::{Ask, Reply, Request, frame, read_frame, write_frame};
use super::root::ContainerDir;

/// How long an answer is waited for. Every step that an owner takes for it has its own deadline, so this is
/// for an owner that hangs.
const ANSWER: Duration = Duration::from_secs(300);

/// The name of the socket in the container's directory.
const SOCKET: &str = "socket";

/// Asks the owner of the container for something; `None` when nobody listens.
pub(crate) fn ask(dir: &ContainerDir, ask: Ask) -> io::Result<Option<Reply>> {
    let Some(mut stream) = connect(dir)? else { return Ok(None) };
    write_frame(&mut stream, &Request::new(&ask))?;
    read_frame(&mut stream)
}

/// Asks the owner for something that needs open files, and goes on talking; `None` when nobody listens.
pub(crate) fn begin(
    dir: &ContainerDir,
    ask: &Ask,
    files: &[BorrowedFd<'_>],
) -> io::Result<Option<UnixStream>> {
    let Some(mut stream) = connect(dir)? else { return Ok(None) };
    let frame = frame(&Request::new(ask))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(files)), "a process has at most three streams");
    let sent = sendmsg(&stream, &[IoSlice::new(&frame)], &mut control, SendFlags::NOSIGNAL)?;
    stream.write_all(&frame[sent..])?;
    Ok(Some(stream))
}

fn connect(dir: &ContainerDir) -> io::Result<Option<UnixStream>> {
    let stream = match by_short_path(dir.path(), UnixStream::connect) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    Ok(Some(stream))
}

/// Listens for commands.
pub(crate) fn listen(dir: &ContainerDir) -> io::Result<UnixListener> {
    by_short_path(dir.path(), UnixListener::bind)
}

/// The path of a socket may have 107 bytes (unix(7)), that of a directory many more: the socket is named by way
/// of the open directory.
fn by_short_path<T>(dir: &Path, act: impl FnOnce(PathBuf) -> io::Result<T>) -> io::Result<T> {
    let dir = File::open(dir)?;
    act(PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(SOCKET))
}
