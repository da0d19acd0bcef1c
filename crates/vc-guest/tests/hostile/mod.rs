//! Hosts that break the protocol, or stop in the middle of it: the agent refuses, serves others, and keeps its memory.

use std::time::Duration;

use protobuf::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use ttrpc::Code;
use ttrpc::proto::{MESSAGE_HEADER_LENGTH, MESSAGE_LENGTH_MAX, MessageHeader, Request, Response};
use vc_agent_protocol::agent::StartContainerRequest;
use vc_agent_protocol::health::{CheckRequest, HealthCheckResponse, ServingStatus};
use vc_agent_protocol::health_ttrpc::HealthClient;

use crate::{Agent, agent, deadline};

/// The types of frames (ttrpc's PROTOCOL.md).
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const DATA: u8 = 3;

/// A host that sends what it likes, over the second connection of an agent.
struct Host {
    agent: Agent,
    stream: UnixStream,
}

impl Host {
    async fn new() -> Self {
        let mut agent = agent().await;
        let stream = agent.second.take().unwrap();
        Self { agent, stream }
    }

    async fn header(&mut self, stream: u32, kind: u8, length: u32) {
        let header = MessageHeader { length, stream_id: stream, type_: kind, flags: 0 };
        self.stream.write_all(&Vec::from(header)).await.unwrap();
    }

    async fn frame(&mut self, stream: u32, kind: u8, body: &[u8]) {
        self.header(stream, kind, u32::try_from(body.len()).unwrap()).await;
        self.stream.write_all(body).await.unwrap();
    }

    async fn call(&mut self, stream: u32, service: &str, method: &str, payload: Vec<u8>) {
        let (service, method) = (service.to_owned(), method.to_owned());
        let request = Request { service, method, payload, ..Default::default() };
        self.frame(stream, REQUEST, &request.write_to_bytes().unwrap()).await;
    }

    /// The next answer: the stream that it is for, and itself.
    async fn answer(&mut self) -> (u32, Response) {
        let mut header = [0; MESSAGE_HEADER_LENGTH];
        let read = async {
            self.stream.read_exact(&mut header).await.unwrap();
            let header = MessageHeader::from(header);
            let mut body = vec![0; usize::try_from(header.length).unwrap()];
            self.stream.read_exact(&mut body).await.unwrap();
            (header.stream_id, Response::parse_from_bytes(&body).unwrap())
        };
        tokio::time::timeout(Duration::from_secs(60), read).await.expect("an answer comes")
    }

    async fn refusal(&mut self, stream: u32) -> Code {
        let (answered, response) = self.answer().await;
        assert_eq!(answered, stream);
        response.status.as_ref().expect("a refusal").code()
    }

    /// Asserts that this connection still serves.
    async fn is_served(&mut self, stream: u32) {
        self.call(stream, "grpc.Health", "Check", CheckRequest::new().write_to_bytes().unwrap()).await;
        let (answered, response) = self.answer().await;
        let health = HealthCheckResponse::parse_from_bytes(&response.payload).unwrap();
        assert_eq!((answered, health.status), (stream, ServingStatus::SERVING.into()));
    }

    /// Asserts that the other connection still serves.
    async fn another_is_served(&self) {
        let health = HealthClient::new(self.agent.first.clone());
        health.check(deadline(), &CheckRequest::new()).await.unwrap();
    }
}

#[tokio::test]
async fn frames_too_large_are_refused_and_not_kept() {
    let mut host = Host::new().await;
    let before = resident();
    let body = vec![0; MESSAGE_LENGTH_MAX + 1];
    for round in 0..20 {
        host.frame(2 * round + 1, REQUEST, &body).await;
        assert_eq!(host.refusal(2 * round + 1).await, Code::INVALID_ARGUMENT);
    }
    host.is_served(101).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
}

#[tokio::test]
async fn a_frame_that_never_ends_holds_up_its_own_connection_only() {
    let mut host = Host::new().await;
    host.header(1, REQUEST, u32::MAX).await;
    host.stream.write_all(&[0; 100_000]).await.unwrap();
    host.another_is_served().await;
    let mut host = Host::new().await;
    host.header(1, REQUEST, 100).await;
    host.stream.write_all(b"half").await.unwrap();
    host.another_is_served().await;
    let Host { agent, stream } = host;
    drop(stream);
    drop(agent.first);
    let closed = tokio::time::timeout(Duration::from_secs(60), agent.connections.all_closed()).await;
    assert!(closed.is_ok(), "a connection stays open after the host has closed both");
}

#[tokio::test]
async fn garbage_and_unknown_calls_are_refused_and_the_connection_goes_on() {
    let mut host = Host::new().await;
    host.frame(1, REQUEST, &[0xff; 99]).await;
    assert_eq!(host.refusal(1).await, Code::INVALID_ARGUMENT);
    host.frame(3, REQUEST, b"").await;
    assert_eq!(host.refusal(3).await, Code::INVALID_ARGUMENT);
    host.call(5, "grpc.Nothing", "Check", vec![]).await;
    assert_eq!(host.refusal(5).await, Code::INVALID_ARGUMENT);
    host.call(7, "grpc.AgentService", "Nothing", vec![]).await;
    assert_eq!(host.refusal(7).await, Code::UNIMPLEMENTED);
    host.call(9, "grpc.AgentService", "StartContainer", vec![0xff; 99]).await;
    assert_ne!(host.refusal(9).await, Code::OK);
    host.is_served(11).await;
}

#[tokio::test]
async fn wrong_ids_are_refused() {
    let mut host = Host::new().await;
    let payload = CheckRequest::new().write_to_bytes().unwrap();
    for even in [0, 2, u32::MAX - 1] {
        host.call(even, "grpc.Health", "Check", payload.clone()).await;
        assert_eq!(host.refusal(even).await, Code::INVALID_ARGUMENT);
    }
    host.frame(99, DATA, b"for a stream that nobody opened").await;
    assert_eq!(host.refusal(99).await, Code::INVALID_ARGUMENT);
    // An id that is used again is a call of its own.
    for _ in 0..3 {
        host.is_served(u32::MAX).await;
    }
}

#[tokio::test]
async fn answers_to_nothing_and_unknown_frames_are_ignored() {
    let mut host = Host::new().await;
    for kind in [0, RESPONSE, 4, 255] {
        host.frame(1, kind, &[0xa5; 100]).await;
    }
    host.is_served(3).await;
    host.another_is_served().await;
}

#[tokio::test]
async fn a_host_that_goes_away_in_mid_call_leaves_the_agent_serving() {
    for _ in 0..20 {
        let mut host = Host::new().await;
        let start = StartContainerRequest { container_id: "absent".into(), ..Default::default() };
        host.call(1, "grpc.AgentService", "StartContainer", start.write_to_bytes().unwrap()).await;
        let Host { agent, stream } = host;
        drop(stream);
        let health = HealthClient::new(agent.first.clone());
        health.check(deadline(), &CheckRequest::new()).await.unwrap();
    }
}

#[tokio::test]
async fn a_host_that_reads_nothing_holds_up_its_own_connection_only() {
    let mut host = Host::new().await;
    let payload = CheckRequest::new().write_to_bytes().unwrap();
    let flood = async {
        for stream in 0..2000 {
            host.call(2 * stream + 1, "grpc.Health", "Check", payload.clone()).await;
        }
    };
    // The agent may stop reading once its answers fill the socket.
    let _ = tokio::time::timeout(Duration::from_millis(500), flood).await;
    host.another_is_served().await;
}

/// The resident set of this process, in bytes (proc_pid_statm(5)).
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
