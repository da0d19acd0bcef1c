//! One connection of the host: requests in, answers out
//! ([ttrpc's protocol](https://github.com/containerd/ttrpc/blob/main/PROTOCOL.md), without streams, which the agent
//! protocol does not use).
//!
//! The crate `ttrpc` has a server too. It encodes every answer twice and clears the room for it before, which costs
//! more than all else when an answer is a mebibyte of output and the machine is emulated.

use super::frame::{self, Answer};
use super::reading::{self, Output};
use crate::guest::Guest;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use ttrpc::asynchronous::{Service, TtrpcContext};
use ttrpc::proto::{MESSAGE_TYPE_DATA, MESSAGE_TYPE_REQUEST, MessageHeader};
use ttrpc::{Code, Request, Response, get_status};

/// How many answers may wait to be written.
const QUEUE: usize = 64;

/// How many calls may be under way. What comes then waits in the socket.
const MAX_CALLS: usize = 16_384;

/// The services of an agent.
#[derive(Clone)]
pub struct Server(Arc<Shared>);

struct Shared {
    guest: Guest,
    services: HashMap<String, Service>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.0.services.keys()).finish()
    }
}

impl Server {
    pub(super) fn new(guest: Guest, services: HashMap<String, Service>) -> Self {
        Self(Arc::new(Shared { guest, services }))
    }

    /// Serves a host until it hangs up. The calls that are under way end then, unless they run on their own.
    ///
    /// # Cancel safety
    /// Dropping the future hangs up.
    pub async fn serve<S: AsyncRead + AsyncWrite + Send + 'static>(&self, stream: S) {
        let (reader, writer) = tokio::io::split(stream);
        let mut reader = BufReader::new(reader);
        let (answers, queue) = mpsc::channel(QUEUE);
        // Ends its tasks when it is dropped.
        let mut tasks = JoinSet::new();
        tasks.spawn(write(writer, queue));
        while let Ok((header, body)) = frame::read(&mut reader).await {
            let (server, answers) = (self.clone(), answers.clone());
            tasks.spawn(async move {
                if let Some(answer) = server.answer(header, body).await {
                    // Nobody writes it when the host reads no more.
                    let _ = answers.send(answer).await;
                }
            });
            while tasks.try_join_next().is_some() {}
            while tasks.len() > MAX_CALLS {
                tasks.join_next().await;
            }
        }
    }

    /// The answer to a frame; `None` to one that is no request. A `body` of `None` was too long.
    async fn answer(&self, header: MessageHeader, body: Option<Vec<u8>>) -> Option<Answer> {
        let refuse = |text: &str| Some(refusal(header.stream_id, Code::INVALID_ARGUMENT, text));
        let Some(body) = body else { return refuse("the request is longer than the protocol allows") };
        if header.stream_id.is_multiple_of(2) {
            return refuse("the id of a request is odd");
        }
        match header.type_ {
            MESSAGE_TYPE_REQUEST => {}
            MESSAGE_TYPE_DATA => return refuse("no stream is open: the agent protocol has none"),
            _ => return None,
        }
        let Ok(request) = <Request as protobuf::Message>::parse_from_bytes(&body) else {
            return refuse("this is no request");
        };
        // The request has copies.
        drop(body);
        let within = u64::try_from(request.timeout_nano).ok().filter(|nanoseconds| *nanoseconds > 0);
        let Some(within) = within else { return Some(self.call(header, request).await) };
        let answer = tokio::time::timeout(Duration::from_nanos(within), self.call(header, request)).await;
        Some(answer.unwrap_or_else(|_| {
            refusal(header.stream_id, Code::DEADLINE_EXCEEDED, "the call took longer than the host waits")
        }))
    }

    async fn call(&self, header: MessageHeader, request: Request) -> Answer {
        let stream = header.stream_id;
        let Some(service) = self.0.services.get(&request.service) else {
            return refusal(stream, Code::INVALID_ARGUMENT, "there is no such service");
        };
        if let Some(output) = Output::of(&request) {
            return reading::answer(&self.0.guest, output, stream, &request.payload).await;
        }
        let Some(method) = service.methods.get(&request.method) else {
            return refusal(stream, Code::UNIMPLEMENTED, "this agent has no such method");
        };
        let context = TtrpcContext { mh: header, timeout_nano: request.timeout_nano, ..Default::default() };
        let response = method.handler(context, request).await.unwrap_or_else(|error| {
            let mut response = Response::new();
            response.set_status(get_status(Code::UNKNOWN, error));
            response
        });
        Answer::of(stream, &response).unwrap_or_else(|| {
            refusal(stream, Code::INTERNAL, "the answer is longer than the protocol allows")
        })
    }
}

pub(super) fn refusal(stream: u32, code: Code, text: &str) -> Answer {
    let mut response = Response::new();
    response.set_status(get_status(code, text));
    Answer::of(stream, &response).unwrap_or_default()
}

/// Writes answers in the order in which they come, until the host reads no more.
async fn write(mut writer: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Answer>) {
    while let Some(answer) = queue.recv().await {
        if writer.write_all(answer.bytes()).await.is_err() {
            return;
        }
    }
}
