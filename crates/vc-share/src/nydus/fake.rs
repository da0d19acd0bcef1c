//! A nydusd that serves nothing: its API with what is mounted, and with calls that go wrong.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use vc_types::HostPath;

use super::http;

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NydusFault {
    /// It is refused, in JSON as it should be; nothing is done.
    Refuse,
    /// It is refused without a word; nothing is done.
    RefuseSilently,
    /// The answer is no HTTP; nothing is done.
    Garbage,
    /// The answer says that it is longer than anybody would take; nothing is done.
    TooLong,
    /// The head of the answer has no end; nothing is done.
    Endless,
    /// The connection is closed in the middle of the answer; it is done.
    BreakOff,
    /// It has no answer; nothing is done.
    Hang,
    /// It has no answer; it is done.
    Unanswered,
}

impl NydusFault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Refuse,
        Self::RefuseSilently,
        Self::Garbage,
        Self::TooLong,
        Self::Endless,
        Self::BreakOff,
        Self::Hang,
        Self::Unanswered,
    ];
}

/// The API of a nydusd. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct FakeNydusd(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What is mounted where, by the names of the API.
    mounts: BTreeMap<String, String>,
    /// How many calls there are to go until the one that goes wrong.
    next: Option<(u32, NydusFault)>,
    calls: Vec<String>,
}

impl FakeNydusd {
    /// Serves the API at `socket` until the runtime ends.
    ///
    /// # Errors
    /// What the system says when there can be no such socket.
    pub fn listen(socket: &HostPath) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let fake = Self::default();
        let serving = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        Ok(fake)
    }

    /// Has the `n`-th call from now on go wrong, counted from 1.
    pub fn fail(&self, n: u32, fault: NydusFault) {
        self.lock().next = Some((n, fault));
    }

    /// Whether the call that was to go wrong has come; no other will.
    pub fn heal(&self) -> bool {
        self.lock().next.take().is_none()
    }

    /// As if another process had its place, which has nothing mounted.
    pub fn restart(&self) {
        self.lock().mounts.clear();
    }

    /// What was asked so far: method and path.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// What is mounted: where, and from what.
    pub fn mounts(&self) -> BTreeMap<String, String> {
        self.lock().mounts.clone()
    }

    async fn serve(self, mut stream: UnixStream) {
        let Ok((start, body)) = http::read_message(&mut stream).await else { return };
        let fault = self.meet(&start);
        let answer = match fault {
            None | Some(NydusFault::BreakOff | NydusFault::Unanswered) => self.answer(&start, &body),
            Some(NydusFault::Refuse) => refusal(500, "as planned"),
            Some(NydusFault::RefuseSilently) => "HTTP/1.1 500 \r\n\r\n".to_owned(),
            Some(NydusFault::Garbage) => "\u{0}SSH-2.0-OpenSSH\r\n\r\n".to_owned(),
            Some(NydusFault::TooLong) => "HTTP/1.1 200 \r\nContent-Length: 99999999999\r\n\r\n{".to_owned(),
            Some(NydusFault::Endless) => format!("HTTP/1.1 200 \r\nX: {}", "x".repeat(1 << 20)),
            Some(NydusFault::Hang) => String::new(),
        };
        let keeps_silent = matches!(fault, Some(NydusFault::Hang | NydusFault::Unanswered));
        let answer = if fault == Some(NydusFault::BreakOff) { &answer[..answer.len() / 2] } else { &answer };
        if !keeps_silent {
            // Whoever has heard enough closes the connection.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        if fault != Some(NydusFault::BreakOff) {
            // As the real one, which waits for another request.
            let _ = stream.read(&mut [0]).await;
        }
    }

    /// Counts a call; says what goes wrong with it.
    fn meet(&self, start: &str) -> Option<NydusFault> {
        let mut state = self.lock();
        state.calls.push(start.trim_end_matches(" HTTP/1.1").to_owned());
        let (left, fault) = state.next?;
        state.next = (left > 1).then_some((left - 1, fault));
        (left == 1).then_some(fault)
    }

    fn answer(&self, start: &str, body: &[u8]) -> String {
        let mut words = start.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let at = path.strip_prefix("/api/v1/mount?mountpoint=").map(|at| at.replace("%2B", "+"));
        let mut state = self.lock();
        match (method, path, at) {
            ("GET", "/api/v1/daemon", _) => {
                let kind = |at: &str| if at.starts_with("/rafs/") { "Rafs" } else { "PassthroughFs" };
                let mounts: BTreeMap<_, _> =
                    state.mounts.keys().map(|at| (at, json!({"backend_type": kind(at)}))).collect();
                answer(200, &json!({"state": "RUNNING", "backend_collection": mounts}).to_string())
            }
            ("POST", _, Some(at)) if state.mounts.contains_key(&at) => refusal(500, "it exists already"),
            ("POST", _, Some(at)) => match source_of(body) {
                Ok(source) => {
                    state.mounts.insert(at, source);
                    answer(204, "")
                }
                Err(why) => refusal(500, why),
            },
            ("DELETE", _, Some(at)) => match state.mounts.remove(&at) {
                Some(_) => answer(204, ""),
                None => refusal(500, "it does not exist"),
            },
            _ => refusal(404, "NoRoute"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds the state")
    }
}

/// What is to be mounted, if it can be.
fn source_of(body: &[u8]) -> Result<String, &'static str> {
    let body: Value = serde_json::from_slice(body).map_err(|_| "ParseBody")?;
    let field = |name: &str| body[name].as_str().unwrap_or_default();
    let is_config = serde_json::from_str::<Value>(field("config")).is_ok_and(|config| config.is_object());
    let source = Path::new(field("source"));
    match field("fs_type") {
        "passthrough_fs" if source.is_dir() => {}
        "rafs" if source.is_file() && is_config => {}
        _ => return Err("it cannot be mounted"),
    }
    Ok(field("source").to_owned())
}

fn refusal(status: u16, message: &str) -> String {
    answer(status, &json!({"code": "UNDEFINED", "message": message}).to_string())
}

fn answer(status: u16, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("HTTP/1.1 {status} \r\nServer: Nydus API\r\nConnection: keep-alive\r\n{length}\r\n{body}")
}
