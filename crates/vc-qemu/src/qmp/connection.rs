//! The task that owns the stream: writes commands, matches replies by id, hands on events.
//!
//! It reads whenever there is something to read, also while a command is only partly written: QEMU
//! stops reading when its own output is not taken, and two who only write wait for each other for good.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Map, Value};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::events::Events;

/// The longest line taken from QEMU, in bytes. A peer that sends more is not QEMU.
const LONGEST_LINE: usize = 64 << 20;

/// The room for a line that is kept from one line to the next, in bytes.
const KEPT_ROOM: usize = 1 << 20;

/// One command on its way.
pub(super) struct Request {
    /// The command without its id.
    pub(super) line: Map<String, Value>,
    /// Its descriptor is sent along with the command's first byte.
    pub(super) file: Option<Arc<File>>,
    pub(super) reply: Reply,
}

/// Where the answer to a command goes.
pub(super) type Reply = oneshot::Sender<Result<Value, Refusal>>;

/// QEMU answered with an error.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) not_found: bool,
    pub(super) description: String,
}

pub(super) struct Connection {
    reader: Reader,
    writer: Writer,
    pending: HashMap<u64, Reply>,
    next_id: u64,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (reading, writing) = stream.into_split();
        Self {
            reader: Reader { stream: reading, unread: Vec::new(), searched: 0 },
            writer: Writer { stream: writing, outgoing: None },
            pending: HashMap::new(),
            next_id: 0,
        }
    }

    /// Reads the greeting.
    pub(super) async fn greeting(&mut self) -> io::Result<qapi::qmp::QapiCapabilities> {
        loop {
            if let Some(message) = self.reader.next_message()? {
                return serde_json::from_value(message).map_err(io::Error::from);
            }
            self.reader.read_some().await?;
        }
    }

    /// Serves until the stream or the last handle is gone. Pending callers then learn that it closed.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>, events: Events) {
        loop {
            let step = tokio::select! {
                read = self.reader.read_some() => read.and_then(|()| self.dispatch(&events)),
                written = self.writer.write_some(), if self.writer.is_busy() => written,
                request = requests.recv(), if !self.writer.is_busy() => match request {
                    Some(request) => self.begin(request),
                    None => return,
                },
            };
            if let Err(error) = step {
                tracing::debug!(%error, "the QMP stream ended");
                return;
            }
        }
    }

    fn begin(&mut self, request: Request) -> io::Result<()> {
        // Whoever gave up before a byte was written wants nothing of QEMU any more.
        if request.reply.is_closed() {
            return Ok(());
        }
        let id = self.next_id;
        self.next_id += 1;
        let mut line = request.line;
        line.insert("id".into(), id.into());
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        self.pending.insert(id, request.reply);
        self.writer.outgoing = Some(Outgoing { bytes, written: 0, file: request.file });
        Ok(())
    }

    fn dispatch(&mut self, events: &Events) -> io::Result<()> {
        while let Some(mut message) = self.reader.next_message()? {
            if let Some(event) = message.get("event").and_then(Value::as_str) {
                tracing::trace!(event, "QMP event");
                events.hear(event, message.get("data").unwrap_or(&Value::Null));
                continue;
            }
            // A reply to a command nobody sent is no reason to give up on the others.
            let Some(reply) =
                message.get("id").and_then(Value::as_u64).and_then(|id| self.pending.remove(&id))
            else {
                tracing::warn!(%message, "QMP message that answers no command");
                continue;
            };
            let result = message.get_mut("return").map(Value::take).ok_or_else(|| refusal(&message));
            // Whoever gave up has dropped the other end.
            let _ = reply.send(result);
        }
        Ok(())
    }
}

/// What an answer without a result says. QEMU has a class of its own only for a device that is not there.
fn refusal(message: &Value) -> Refusal {
    let text = |name| message.pointer(name).and_then(Value::as_str);
    Refusal {
        not_found: text("/error/class") == Some("DeviceNotFound"),
        description: text("/error/desc").unwrap_or("no reason given").to_owned(),
    }
}

struct Reader {
    stream: OwnedReadHalf,
    unread: Vec<u8>,
    /// How much of `unread` is known to hold no newline.
    searched: usize,
}

impl Reader {
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
        self.unread.shrink_to(KEPT_ROOM);
        self.searched = 0;
        Ok(Some(message?))
    }
}

struct Writer {
    stream: OwnedWriteHalf,
    outgoing: Option<Outgoing>,
}

/// A command of which `written` bytes are on their way.
struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
    file: Option<Arc<File>>,
}

impl Writer {
    fn is_busy(&self) -> bool {
        self.outgoing.is_some()
    }

    /// Writes what the socket takes. Cancel safe: bytes are given and counted in one step.
    async fn write_some(&mut self) -> io::Result<()> {
        let Some(outgoing) = &mut self.outgoing else { return Ok(()) };
        let stream: &UnixStream = self.stream.as_ref();
        let fds: Vec<_> = outgoing.file.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
        let send = || {
            let part = [IoSlice::new(&outgoing.bytes[outgoing.written..])];
            let sent = sendmsg::<()>(stream.as_raw_fd(), &part, control, MsgFlags::MSG_NOSIGNAL, None);
            sent.map_err(io::Error::from)
        };
        outgoing.written += stream.async_io(Interest::WRITABLE, send).await?;
        outgoing.file = None;
        if outgoing.written == outgoing.bytes.len() {
            self.outgoing = None;
        }
        Ok(())
    }
}
