//! A lost connection: what is asked again, what is not, and who is told.

use std::time::{Duration, Instant};

use vc_agent::{
    AgentError, Call, Containers, ExitStatus, Guest, ProcessRef, Processes, Signal, SignalTarget, Streams,
};
use vc_agent_protocol::agent::{
    Empty, ReadStreamRequest, ReadStreamResponse, SignalProcessRequest, StatsContainerRequest,
    StatsContainerResponse, WaitProcessRequest, WaitProcessResponse,
};
use vc_types::ContainerId;

use crate::peer::{Peer, generous};
use crate::requests::create;

fn id() -> ContainerId {
    "c".parse().unwrap()
}

#[tokio::test]
async fn what_may_come_twice_is_asked_again() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let init = ProcessRef::init(&id());
    let guest = async {
        // Of two calls under way, neither is answered.
        for _ in 0..2 {
            calls.request().await.unwrap();
        }
        drop(calls);
        let mut calls = peer.accept().await;
        for _ in 0..2 {
            let (stream, request) = calls.request().await.unwrap();
            if request.method == "StatsContainer" {
                calls.answer(stream, &StatsContainerResponse::new()).await;
            } else {
                calls.answer(stream, &WaitProcessResponse { status: 5, ..Default::default() }).await;
            }
        }
        calls
    };
    let stats = async { client.container_stats(&id(), generous()).await };
    let (stats, waited, _calls) = tokio::join!(stats, client.wait(&init), guest);
    stats.unwrap();
    assert_eq!(waited.unwrap(), ExitStatus(5));
}

#[tokio::test]
async fn what_may_not_come_twice_is_told_and_the_next_call_goes_through() {
    let peer = Peer::new();
    let (client, mut calls, mut streams) = peer.client().await;
    let init = ProcessRef::init(&id());
    let guest = async {
        calls.expect::<SignalProcessRequest>("SignalProcess").await;
        drop(calls);
        let mut calls = peer.accept().await;
        let (stream, _) = calls.expect::<SignalProcessRequest>("SignalProcess").await;
        calls.answer(stream, &Empty::new()).await;
        streams.expect::<ReadStreamRequest>("ReadStdout").await;
        drop(streams);
        let mut streams = peer.accept().await;
        let (stream, _) = streams.expect::<ReadStreamRequest>("ReadStdout").await;
        streams.answer(stream, &ReadStreamResponse { data: vec![7], ..Default::default() }).await;
        (calls, streams)
    };
    let host = async {
        let target = SignalTarget::Process(init.clone());
        let lost = client.signal(&target, Signal::TERM, generous()).await;
        assert!(matches!(lost, Err(AgentError::Disconnected { call: Call::SignalProcess })), "{lost:?}");
        client.signal(&target, Signal::TERM, generous()).await.unwrap();
        // Bytes may have been lost with the connection, and that must not pass for a whole stream.
        let lost = client.read_stdout(&init, 10).await;
        assert!(matches!(lost, Err(AgentError::Disconnected { call: Call::ReadStdout })), "{lost:?}");
        assert_eq!(client.read_stdout(&init, 10).await.unwrap(), [7]);
    };
    tokio::join!(guest, host);
}

#[tokio::test]
async fn a_creation_is_never_sent_twice() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let guest = async {
        calls.request().await.unwrap();
        drop(calls);
    };
    let request = create("c");
    let (lost, ()) = tokio::join!(client.create_container(&request, generous()), guest);
    assert!(matches!(lost, Err(AgentError::Disconnected { call: Call::CreateContainer })), "{lost:?}");
    let again = client.create_container(&request, generous()).await;
    assert!(matches!(again, Err(AgentError::ContainerExists { .. })), "{again:?}");
    let silence = tokio::time::timeout(Duration::from_millis(200), peer.accept()).await;
    assert!(silence.is_err(), "something was sent");
}

#[tokio::test]
async fn a_guest_that_is_gone_fails_every_call_at_once() {
    let peer = Peer::new();
    let (client, calls, streams) = peer.client().await;
    drop((calls, streams, peer));
    let start = Instant::now();
    for _ in 0..10 {
        let check = client.check(generous()).await;
        assert!(matches!(check, Err(AgentError::Disconnected { call: Call::Check })), "{check:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_second_loss_is_told() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let guest = async {
        calls.expect::<StatsContainerRequest>("StatsContainer").await;
        drop(calls);
        let mut calls = peer.accept().await;
        calls.expect::<StatsContainerRequest>("StatsContainer").await;
    };
    let id = id();
    let (stats, ()) = tokio::join!(client.container_stats(&id, generous()), guest);
    assert!(matches!(stats, Err(AgentError::Disconnected { call: Call::StatsContainer })), "{stats:?}");
}

#[tokio::test]
async fn nobody_connects_to_a_guest_whose_sandbox_is_destroyed() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let guest = async {
        let (stream, request) = calls.request().await.unwrap();
        assert_eq!(request.method, "DestroySandbox");
        calls.answer(stream, &Empty::new()).await;
        drop(calls);
    };
    let (destroyed, ()) = tokio::join!(client.destroy_sandbox(generous()), guest);
    destroyed.unwrap();
    let late = client.check(generous()).await;
    assert!(matches!(late, Err(AgentError::Disconnected { .. })), "{late:?}");
    let silence = tokio::time::timeout(Duration::from_millis(200), peer.accept()).await;
    assert!(silence.is_err(), "somebody connects");
}

#[tokio::test]
async fn a_lost_wait_asks_again_for_itself() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let init = ProcessRef::init(&id());
    let guest = async {
        calls.expect::<WaitProcessRequest>("WaitProcess").await;
        drop(calls);
        let mut calls = peer.accept().await;
        let (stream, _) = calls.expect::<WaitProcessRequest>("WaitProcess").await;
        // The agent had told the exit status to the connection that was lost.
        calls.refuse(stream, ttrpc::Code::NOT_FOUND, "no such process").await;
    };
    let (wait, ()) = tokio::join!(client.wait(&init), guest);
    assert!(matches!(wait, Err(AgentError::NoSuchProcess { .. })), "{wait:?}");
}
