//! A peer that sends whatever a test wants, frame by frame.

use std::time::Duration;

use protobuf::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use ttrpc::proto::{MESSAGE_HEADER_LENGTH, MessageHeader, Request, Response};
use vc_agent::{AgentError, Client, Connect, Connector};
use vc_agent_protocol::health::{HealthCheckResponse, ServingStatus};
use vc_types::{AgentAddress, Deadline, HostPath};

/// Far more than anything here takes; only a defect makes a test wait for it.
pub(crate) fn generous() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// Somebody who listens on a Unix socket.
pub(crate) struct Peer {
    listener: UnixListener,
    directory: tempfile::TempDir,
}

impl Peer {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        Self { listener, directory }
    }

    pub(crate) fn socket(&self) -> HostPath {
        HostPath::new(self.directory.path().join("socket")).unwrap()
    }

    pub(crate) fn address(&self) -> AgentAddress {
        AgentAddress::Unix { socket: self.socket() }
    }

    pub(crate) async fn accept(&self) -> Connection {
        Connection(self.listener.accept().await.unwrap().0)
    }

    /// A client, and the peer's ends of its two connections: for calls and for streams.
    pub(crate) async fn client(&self) -> (Client, Connection, Connection) {
        let greet = async {
            let mut calls = self.accept().await;
            calls.answer_check().await;
            (calls, self.accept().await)
        };
        let address = self.address();
        let connector = Connector::at_once();
        let (client, (calls, streams)) = tokio::join!(connector.connect(&address, generous()), greet);
        (client.unwrap(), calls, streams)
    }
}

/// The peer's end of one connection.
pub(crate) struct Connection(pub(crate) UnixStream);

impl Connection {
    /// The next request: the id of its stream and itself; `None` when the client is gone.
    pub(crate) async fn request(&mut self) -> Option<(u32, Request)> {
        let mut header = [0; MESSAGE_HEADER_LENGTH];
        self.0.read_exact(&mut header).await.ok()?;
        let header = MessageHeader::from(header);
        let mut body = vec![0; usize::try_from(header.length).unwrap()];
        self.0.read_exact(&mut body).await.ok()?;
        Some((header.stream_id, Request::parse_from_bytes(&body).unwrap()))
    }

    /// The next request, which must be of `method`: the id of its stream and its message.
    pub(crate) async fn expect<M: Message>(&mut self, method: &str) -> (u32, M) {
        let (stream, request) = self.request().await.expect("the client is there");
        assert_eq!(request.method, method);
        (stream, M::parse_from_bytes(&request.payload).unwrap())
    }

    pub(crate) async fn answer_check(&mut self) {
        let (stream, request) = self.request().await.expect("the client is there");
        assert_eq!((request.service.as_str(), request.method.as_str()), ("grpc.Health", "Check"));
        assert!(request.timeout_nano > 0);
        let status = ServingStatus::SERVING.into();
        self.answer(stream, &HealthCheckResponse { status, ..Default::default() }).await;
    }

    pub(crate) async fn answer(&mut self, stream: u32, message: &impl Message) {
        let response = Response { payload: message.write_to_bytes().unwrap(), ..Default::default() };
        self.frame(stream, 2, &response.write_to_bytes().unwrap()).await;
    }

    pub(crate) async fn refuse(&mut self, stream: u32, code: ttrpc::Code, text: &str) {
        let mut response = Response::new();
        response.set_status(ttrpc::get_status(code, text));
        self.frame(stream, 2, &response.write_to_bytes().unwrap()).await;
    }

    pub(crate) async fn frame(&mut self, stream: u32, kind: u8, body: &[u8]) {
        self.header(stream, kind, u32::try_from(body.len()).unwrap()).await;
        self.raw(body).await;
    }

    pub(crate) async fn header(&mut self, stream: u32, kind: u8, length: u32) {
        let header = MessageHeader { length, stream_id: stream, type_: kind, flags: 0 };
        self.raw(&Vec::from(header)).await;
    }

    /// Sends `bytes`, or what the client takes of them before it hangs up.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// Waits until the client hangs up.
    pub(crate) async fn wait_for_end(&mut self) {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest).await;
    }
}

/// The source chain of `error` on one line.
pub(crate) fn chain(error: &AgentError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
