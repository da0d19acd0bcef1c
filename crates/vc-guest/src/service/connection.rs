//! One connection of the host: requests in, answers out
//! ([ttrpc's protocol](https://github.com/containerd/ttrpc/blob/main/PROTOCOL.md), without streams, which the agent
//! protocol does not use).
//!
//! The crate `ttrpc` has a server too. It encodes every answer twice and clears the room for it before, which costs
//! more than all else when an answer is a mebibyte of output and the machine is emulated.

use super::frame::{self, Answer};
use super::reading::{self, Output};
use crate::error::CallError;
use crate::guest::Guest;
use futures::FutureExt;
use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
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
                let answer = AssertUnwindSafe(server.answer(header, body)).catch_unwind().await;
                let panicked = |_| Some(failure(header.stream_id, CallError::Panicked));
                if let Some(answer) = answer.unwrap_or_else(panicked) {
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

pub(super) fn failure(stream: u32, error: CallError) -> Answer {
    let mut response = Response::new();
    response.set_status(error.into());
    Answer::of(stream, &response).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::ModuleLoader;
    use crate::reaper::Reaper;
    use crate::uevent::DeviceEvents;
    use async_trait::async_trait;
    use tokio::sync::watch;
    use ttrpc::asynchronous::MethodHandler;

    struct Panics;

    #[async_trait]
    impl MethodHandler for Panics {
        async fn handler(&self, _: TtrpcContext, _: Request) -> ttrpc::Result<Response> {
            panic!("as any defect does")
        }
    }

    fn request(stream: u32, method: &str) -> Vec<u8> {
        let request = Request { service: "test".into(), method: method.into(), ..Default::default() };
        let body = protobuf::Message::write_to_bytes(&request).unwrap();
        let header = MessageHeader::new_request(stream, u32::try_from(body.len()).unwrap());
        [Vec::from(header), body].concat()
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_the_next_call_too() {
        let (_, ready) = watch::channel(true);
        let (_, events) = watch::channel(0);
        let modules = Arc::new(ModuleLoader::open("/nonexistent"));
        let guest = Guest::new(Reaper::default(), modules, ready, DeviceEvents::from_receiver(events));
        let methods = HashMap::from([("Panic".to_owned(), Box::new(Panics) as _)]);
        let service = Service { methods, streams: HashMap::new() };
        let server = Server::new(guest, HashMap::from([("test".to_owned(), service)]));
        let (mut host, theirs) = tokio::io::duplex(4096);
        let serving = tokio::spawn(async move { server.serve(theirs).await });
        let calls = [request(1, "Panic"), request(3, "None")].concat();
        host.write_all(&calls).await.unwrap();
        let mut codes = Vec::new();
        for _ in 0..2 {
            let (header, body) = frame::read(&mut host).await.unwrap();
            let answer: Response = protobuf::Message::parse_from_bytes(&body.unwrap()).unwrap();
            codes.push((header.stream_id, answer.status().code()));
        }
        codes.sort_by_key(|(stream, _)| *stream);
        assert_eq!(codes, [(1, Code::INTERNAL), (3, Code::UNIMPLEMENTED)]);
        drop(host);
        serving.await.unwrap();
    }
}
