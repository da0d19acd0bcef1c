//! A command's side of the conversation with an owner.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::protocol::{Ask, Reply, Request, read_frame, write_frame};
use super::root::ContainerDir;

/// How long an answer is waited for. Every step that an owner takes for it has its own deadline, so this is
/// for an owner that hangs.
const ANSWER: Duration = Duration::from_secs(300);

/// The name of the socket in the container's directory.
const SOCKET: &str = "socket";

/// Asks the owner of the container for something; `None` when nobody listens.
pub(crate) fn ask(dir: &ContainerDir, ask: Ask) -> io::Result<Option<Reply>> {
    let connected = by_short_path(dir.path(), UnixStream::connect);
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    write_frame(&mut stream, &Request::new(ask))?;
    read_frame(&mut stream)
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
