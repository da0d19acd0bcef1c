//! Peers that break the protocol, or stop in the middle of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protobuf::Message;
use tokio::io::AsyncReadExt;
use vc_agent::client::MAX_CHUNK;
use vc_agent::io::Output;
use vc_agent::{AgentError, Call, Client, Containers, Guest, Network, ProcessRef, Processes, Streams};
use vc_agent_protocol::agent::{
    CreateContainerRequest, Interfaces, OOMEvent, ReadStreamResponse, Routes, WaitProcessResponse,
    WriteStreamRequest, WriteStreamResponse,
};
use vc_agent_protocol::types::{IPAddress, Interface, Route};
use vc_types::{ContainerId, Deadline};

use crate::peer::{Connection, Peer, generous};
use crate::requests::create;

fn init() -> ProcessRef {
    ProcessRef::init(&"c".parse::<ContainerId>().unwrap())
}

/// The error of a health check that the peer answers by `answer`.
async fn check_answered_by(answer: impl AsyncFnOnce(&mut Connection, u32)) -> AgentError {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let guest = async {
        let (stream, _) = calls.request().await.unwrap();
        answer(&mut calls, stream).await;
    };
    let (result, ()) = tokio::join!(client.check(generous()), guest);
    result.unwrap_err()
}

#[tokio::test]
async fn a_connection_that_ends_in_mid_call_is_disconnected_for_all() {
    let peer = Peer::new();
    let (client, mut calls, streams) = peer.client().await;
    let guest = async {
        for _ in 0..2 {
            calls.request().await.unwrap();
        }
        drop((calls, streams, peer));
    };
    let init = init();
    let both = async { tokio::join!(client.check(generous()), client.wait(&init)) };
    let ((check, wait), ()) = tokio::join!(both, guest);
    assert!(matches!(check, Err(AgentError::Disconnected { call: Call::Check })), "{check:?}");
    assert!(matches!(wait, Err(AgentError::Disconnected { call: Call::WaitProcess })), "{wait:?}");
    let later = client.check(generous()).await;
    assert!(matches!(later, Err(AgentError::Disconnected { .. })), "{later:?}");
}

#[tokio::test]
async fn frames_that_no_agent_sends_are_malformed() {
    let cut = check_answered_by(async |peer, stream| peer.header(stream, 2, u32::MAX).await).await;
    assert!(matches!(&cut, AgentError::Malformed { detail, .. } if detail.contains("4294967295")), "{cut:?}");
    let cut = check_answered_by(async |peer, stream| peer.header(stream, 2, 2 * MAX_CHUNK).await).await;
    assert!(matches!(cut, AgentError::Malformed { call: Call::Check, .. }), "{cut:?}");
    for kind in [0, 1, 3, 4, 255] {
        let other = check_answered_by(async |peer, stream| peer.frame(stream, kind, b"").await).await;
        assert!(matches!(other, AgentError::Malformed { call: Call::Check, .. }), "{kind}: {other:?}");
    }
    let noise = check_answered_by(async |peer, _| peer.raw(&[0xa5; 4096]).await).await;
    assert!(matches!(noise, AgentError::Malformed { call: Call::Check, .. }), "{noise:?}");
    let garbage = check_answered_by(async |peer, stream| peer.frame(stream, 2, &[0xff; 99]).await).await;
    assert!(matches!(garbage, AgentError::Malformed { call: Call::Check, .. }), "{garbage:?}");
    let inner = ttrpc::Response { payload: vec![0xff; 99], ..Default::default() };
    let inner = inner.write_to_bytes().unwrap();
    let garbage = check_answered_by(async |peer, stream| peer.frame(stream, 2, &inner).await).await;
    assert!(matches!(garbage, AgentError::Malformed { call: Call::Check, .. }), "{garbage:?}");
}

#[tokio::test]
async fn a_frame_cut_short_is_disconnected() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let guest = async {
        let (stream, _) = calls.request().await.unwrap();
        calls.header(stream, 2, 100).await;
        calls.raw(b"half").await;
        drop((calls, peer));
    };
    let (check, ()) = tokio::join!(client.check(generous()), guest);
    assert!(matches!(check, Err(AgentError::Disconnected { .. })), "{check:?}");
}

#[tokio::test]
async fn answers_that_nobody_asked_for_change_nothing() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let guest = async {
        let (stream, _) = calls.request().await.unwrap();
        for other in [0, stream - 2, stream + 1, stream + 2, u32::MAX] {
            calls.answer(other, &WaitProcessResponse { status: 99, ..Default::default() }).await;
        }
        calls.answer(stream, &WaitProcessResponse { status: 3, ..Default::default() }).await;
        calls.answer(stream, &WaitProcessResponse { status: 4, ..Default::default() }).await;
        calls.answer_check().await;
    };
    let host = async {
        assert_eq!(client.wait(&init()).await.unwrap().0, 3);
        assert_eq!(client.wait(&init()).await.unwrap().0, 3);
        client.check(generous()).await.unwrap();
    };
    tokio::join!(guest, host);
}

#[tokio::test]
async fn late_answers_are_ignored_and_the_connection_goes_on() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let guest = async {
        let (late, _) = calls.request().await.unwrap();
        let (stream, request) = calls.request().await.unwrap();
        assert_eq!(request.method, "Check");
        calls.answer(late, &WaitProcessResponse::new()).await;
        calls.refuse(stream, ttrpc::Code::UNIMPLEMENTED, "no").await;
    };
    let host = async {
        let start = Instant::now();
        let late = client.check(Deadline::after(Duration::from_millis(100))).await;
        assert!(matches!(late, Err(AgentError::Deadline { call: Call::Check })), "{late:?}");
        assert!(start.elapsed() < Duration::from_secs(5));
        let next = client.check(generous()).await;
        assert!(matches!(next, Err(AgentError::Unimplemented { call: Call::Check })), "{next:?}");
    };
    tokio::join!(guest, host);
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_not_sent_as_none() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let over = client.check(Deadline::after(Duration::ZERO)).await;
    assert!(matches!(over, Err(AgentError::Deadline { .. })), "{over:?}");
    drop(client);
    while let Some((_, request)) = calls.request().await {
        assert_eq!(request.timeout_nano, 1);
    }
}

#[tokio::test]
async fn values_out_of_range_are_malformed() {
    let peer = Peer::new();
    let (client, mut calls, mut streams) = peer.client().await;
    let guest = async {
        for status in [-1, 256, i32::MIN] {
            let (stream, _) = calls.request().await.unwrap();
            calls.answer(stream, &WaitProcessResponse { status, ..Default::default() }).await;
        }
        for len in [0, 4, u32::MAX] {
            let (stream, _) = streams.expect::<WriteStreamRequest>("WriteStdin").await;
            streams.answer(stream, &WriteStreamResponse { len, ..Default::default() }).await;
        }
        let (stream, _) = streams.request().await.unwrap();
        streams.answer(stream, &ReadStreamResponse { data: vec![0; 11], ..Default::default() }).await;
    };
    let host = async {
        for _ in 0..3 {
            let status = client.wait(&init()).await;
            assert!(matches!(status, Err(AgentError::Malformed { .. })), "{status:?}");
        }
        for _ in 0..3 {
            let taken = client.write_stdin(&init(), b"abc").await;
            assert!(matches!(taken, Err(AgentError::Malformed { .. })), "{taken:?}");
        }
        let more = client.read_stdout(&init(), 10).await;
        assert!(matches!(more, Err(AgentError::Malformed { call: Call::ReadStdout, .. })), "{more:?}");
    };
    tokio::join!(guest, host);
}

/// A peer that reads nothing: the client's requests fill the socket, and the rest waits behind them.
async fn clog(client: &Arc<Client>) -> Vec<tokio::task::JoinHandle<()>> {
    let mut writes = Vec::new();
    for _ in 0..4 {
        let client = Arc::clone(client);
        let size = usize::try_from(MAX_CHUNK).unwrap();
        writes.push(tokio::spawn(async move {
            let _ = client.write_stdin(&init(), &vec![0; size]).await;
        }));
    }
    tokio::task::yield_now().await;
    writes
}

#[tokio::test]
async fn stdin_that_nobody_reads_holds_up_no_call() {
    let peer = Peer::new();
    let (client, mut calls, mut streams) = peer.client().await;
    let client = Arc::new(client);
    let writes = clog(&client).await;
    let (check, ()) = tokio::join!(client.check(generous()), calls.answer_check());
    check.unwrap();
    // Dropped while they are being written, the writes still leave whole frames on the wire.
    for write in writes {
        write.abort();
        assert!(write.await.unwrap_err().is_cancelled());
    }
    for _ in 0..4 {
        let (_, request) = streams.expect::<WriteStreamRequest>("WriteStdin").await;
        assert_eq!(request.data.len(), usize::try_from(MAX_CHUNK).unwrap());
    }
    let guest = async {
        let (stream, _) = streams.request().await.unwrap();
        streams.answer(stream, &ReadStreamResponse { data: vec![1], ..Default::default() }).await;
    };
    let init = init();
    let (read, ()) = tokio::join!(client.read_stdout(&init, 10), guest);
    assert_eq!(read.unwrap(), [1]);
}

#[tokio::test]
async fn a_guest_that_stops_reading_cannot_hold_a_call_beyond_its_deadline() {
    let peer = Peer::new();
    let (client, _calls, _streams) = peer.client().await;
    let client = Arc::new(client);
    let mut waiting = Vec::new();
    for n in 0..300 {
        let client = Arc::clone(&client);
        let mut request = create(&format!("c{n}"));
        request.storages[0].options = vec!["x".repeat(100_000)];
        waiting.push(tokio::spawn(async move {
            client.create_container(&request, Deadline::after(Duration::from_millis(500))).await
        }));
    }
    let start = Instant::now();
    for call in waiting {
        let result = call.await.unwrap();
        let given_up = matches!(result, Err(AgentError::Deadline { .. } | AgentError::Disconnected { .. }));
        assert!(given_up, "{result:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test]
async fn dropping_the_client_ends_its_connections_and_what_waits_on_them() {
    let peer = Peer::new();
    let (client, mut calls, mut streams) = peer.client().await;
    let init = init();
    for _ in 0..3 {
        assert!(futures::poll!(std::pin::pin!(client.wait(&init))).is_pending());
        assert!(futures::poll!(std::pin::pin!(client.read_stdout(&init, 1))).is_pending());
    }
    drop(client);
    calls.wait_for_end().await;
    streams.wait_for_end().await;
}

#[tokio::test]
async fn a_flood_of_answers_is_read_in_bounded_memory() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let before = resident();
    let guest = async {
        let (stream, _) = calls.expect::<CreateContainerRequest>("CreateContainer").await;
        // Empty details in a status: two bytes on the wire, a whole message each when decoded.
        let bloat = [0x0a, 0x04, 0x1a, 0x00, 0x1a, 0x00].repeat(50_000);
        for other in 0..200 {
            calls.frame(1_000_001 + 2 * other, 2, &bloat).await;
        }
        calls.frame(stream, 2, &bloat).await;
    };
    let create = create("c");
    let (result, ()) = tokio::join!(client.create_container(&create, generous()), guest);
    drop(result);
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
}

#[tokio::test]
async fn a_stream_that_never_ends_is_read_in_bounded_memory() {
    let peer = Peer::new();
    let (client, _calls, mut streams) = peer.client().await;
    let mut output = Output::stdout(&Arc::new(client), &init());
    let before = resident();
    let guest = async {
        let answer = ReadStreamResponse { data: vec![7; 256 * 1024], ..Default::default() };
        while let Some((stream, _)) = streams.request().await {
            streams.answer(stream, &answer).await;
        }
    };
    let host = async {
        let mut buffer = vec![0; 100_000];
        for _ in 0..2000 {
            output.read_exact(&mut buffer).await.unwrap();
        }
        drop(output);
    };
    tokio::join!(guest, host);
    let grown = resident().saturating_sub(before);
    assert!(grown < 96 << 20, "{grown} bytes more");
}

#[tokio::test]
async fn figures_and_addresses_that_are_none_are_malformed() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let guest = async {
        let (stream, _) = calls.request().await.unwrap();
        let address = IPAddress { address: "192.0.2.1".into(), mask: "99".into(), ..Default::default() };
        let interface = Interface { name: "eth0".into(), ip_addresses: vec![address], ..Default::default() };
        calls.answer(stream, &Interfaces { interfaces: vec![interface], ..Default::default() }).await;
        for (dest, scope) in [("nowhere", 0), ("192.0.2.0/24", 256)] {
            let (stream, _) = calls.request().await.unwrap();
            let route = Route { dest: dest.into(), scope, ..Default::default() };
            calls.answer(stream, &Routes { routes: vec![route], ..Default::default() }).await;
        }
        let (stream, _) = calls.request().await.unwrap();
        calls.answer(stream, &OOMEvent { container_id: "../x".into(), ..Default::default() }).await;
    };
    let host = async {
        let interfaces = client.interfaces(generous()).await;
        assert!(matches!(interfaces, Err(AgentError::Malformed { .. })), "{interfaces:?}");
        for _ in 0..2 {
            let routes = client.routes(generous()).await;
            assert!(matches!(routes, Err(AgentError::Malformed { .. })), "{routes:?}");
        }
        let event = client.oom_event().await;
        assert!(matches!(event, Err(AgentError::Malformed { call: Call::GetOOMEvent, .. })), "{event:?}");
    };
    tokio::join!(guest, host);
}

/// The resident set of this process, in bytes (proc_pid_statm(5)).
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
