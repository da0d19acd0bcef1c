//! The task that owns the stream: writes commands, matches replies by id, hands on events.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Map, Value};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::unplugs::Unplugs;

/// The longest line taken from QEMU, in bytes. A peer that sends more is not QEMU.
const LONGEST_LINE: usize = 64 << 20;

/// One command on its way.
pub(super) struct Request {
    /// The command without its id.
    pub(super) line: Map<String, Value>,
    /// Its descriptor is sent along with the command's first byte.
    pub(super) file: Option<Arc<File>>,
    pub(super) reply: oneshot::Sender<Result<Value, qapi::Error>>,
}

pub(super) struct Connection {
    stream: UnixStream,
    unread: Vec<u8>,
    /// How much of `unread` is known to hold no newline.
    searched: usize,
    pending: HashMap<u64, oneshot::Sender<Result<Value, qapi::Error>>>,
    next_id: u64,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, unread: Vec::new(), searched: 0, pending: HashMap::new(), next_id: 0 }
    }

    /// Reads the greeting.
    pub(super) async fn greeting(&mut self) -> io::Result<()> {
        loop {
            if let Some(message) = self.next_message()? {
                let greeting = serde_json::from_value::<qapi::qmp::QapiCapabilities>(message);
                return greeting.map(drop).map_err(io::Error::from);
            }
            self.read_some().await?;
        }
    }

    /// Serves until the stream or the last handle is gone. Pending callers then learn that it closed.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>, unplugs: Unplugs) {
        loop {
            let step = tokio::select! {
                read = self.read_some() => read,
                request = requests.recv() => match request {
                    Some(request) => self.send(request).await,
                    None => return,
                },
            };
            if let Err(error) = step.and_then(|()| self.dispatch(&unplugs)) {
                tracing::debug!(%error, "the QMP stream ended");
                return;
            }
        }
    }

    /// Appends what there is to read. Cancel safe: bytes are taken and kept in one step.
    async fn read_some(&mut self) -> io::Result<()> {
        loop {
            self.stream.readable().await?;
            let mut chunk = [0; 16 << 10];
            match self.stream.try_read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.unread.extend_from_slice(&chunk[..read]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next whole line, if there is one.
    fn next_message(&mut self) -> io::Result<Option<Value>> {
        let found = self.unread[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = found.map(|at| self.searched + at) else {
            self.searched = self.unread.len();
            if self.searched > LONGEST_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without end"));
            }
            return Ok(None);
        };
        let message = serde_json::from_slice(&self.unread[..end]);
        self.unread.drain(..=end);
        self.searched = 0;
        Ok(Some(message?))
    }

    fn dispatch(&mut self, unplugs: &Unplugs) -> io::Result<()> {
        while let Some(mut message) = self.next_message()? {
            if let Some(event) = message.get("event").and_then(Value::as_str) {
                tracing::trace!(event, "QMP event");
                unplugs.hear(event, message.get("data"));
                continue;
            }
            // A reply to a command nobody sent is no reason to give up on the others.
            let Some(reply) =
                message.get("id").and_then(Value::as_u64).and_then(|id| self.pending.remove(&id))
            else {
                tracing::warn!(%message, "QMP message that answers no command");
                continue;
            };
            let result = match message.get_mut("return") {
                Some(value) => Ok(value.take()),
                None => Err(serde_json::from_value::<qapi::Error>(message)?),
            };
            // Whoever gave up has dropped the other end.
            let _ = reply.send(result);
        }
        Ok(())
    }

    async fn send(&mut self, request: Request) -> io::Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = request.line;
        line.insert("id".into(), id.into());
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        self.pending.insert(id, request.reply);
        let mut file = request.file;
        let mut sent = 0;
        while sent < bytes.len() {
            sent += self.send_some(&bytes[sent..], file.as_deref()).await?;
            file = None;
        }
        Ok(())
    }

    async fn send_some(&self, bytes: &[u8], file: Option<&File>) -> io::Result<usize> {
        let fds: Vec<_> = file.map(AsRawFd::as_raw_fd).into_iter().collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
        let send = || {
            let part = [IoSlice::new(bytes)];
            let flags = MsgFlags::MSG_NOSIGNAL;
            let sent = sendmsg::<()>(self.stream.as_raw_fd(), &part, control, flags, None);
            sent.map_err(io::Error::from)
        };
        self.stream.async_io(Interest::WRITABLE, send).await
    }
}
