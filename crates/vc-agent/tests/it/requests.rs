//! What goes over the wire for each call, and what its answers come to.

use std::time::Duration;

use ttrpc::Code;
use vc_agent::{
    AgentError, Call, Containers, CreateContainer, CreateSandbox, ExitStatus, Guest, ProcessRef, Processes,
    Signal, SignalTarget, Storage, StorageDriver, Streams, TerminalSize,
};
use vc_agent_protocol::agent::*;
use vc_types::{ContainerId, Deadline, GuestPath};

use crate::peer::{Peer, generous};

fn container(id: &str) -> ContainerId {
    id.parse().unwrap()
}

pub(crate) fn create(id: &str) -> CreateContainer {
    let storage = Storage {
        driver: StorageDriver::Block,
        driver_options: vec!["o=1".to_owned()],
        source: "05/00".to_owned(),
        fs_type: "erofs".to_owned(),
        options: vec!["ro".to_owned()],
        mount_point: GuestPath::new("/run/vc/layers/0").unwrap(),
    };
    CreateContainer {
        id: container(id),
        spec: oci_spec::runtime::Spec::default(),
        storages: vec![storage],
        shared_pid_namespace: false,
    }
}

#[tokio::test]
async fn requests_say_what_kata_understands() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let guest = async {
        let (stream, request) = calls.expect::<CreateSandboxRequest>("CreateSandbox").await;
        assert_eq!((request.sandbox_id.as_str(), request.hostname.as_str()), ("s", "box"));
        calls.answer(stream, &Empty::new()).await;
        let (stream, request) = calls.expect::<CreateContainerRequest>("CreateContainer").await;
        assert_eq!((request.container_id.as_str(), request.exec_id.as_str()), ("c", "c"));
        let storage = &request.storages[0];
        assert_eq!((storage.driver.as_str(), storage.source.as_str()), ("blk", "05/00"));
        assert_eq!((storage.fstype.as_str(), storage.mount_point.as_str()), ("erofs", "/run/vc/layers/0"));
        assert_eq!(
            (&storage.options[..], &storage.driver_options[..]),
            (&["ro".into()][..], &["o=1".into()][..])
        );
        assert!(!request.oci.process.args.is_empty());
        calls.answer(stream, &Empty::new()).await;
        for (exec, signal) in [("c", 15), ("", 9), ("e", 1)] {
            let (stream, request) = calls.expect::<SignalProcessRequest>("SignalProcess").await;
            assert_eq!((request.exec_id.as_str(), request.signal), (exec, signal));
            calls.answer(stream, &Empty::new()).await;
        }
        let (stream, request) = calls.expect::<TtyWinResizeRequest>("TtyWinResize").await;
        assert_eq!((request.exec_id.as_str(), request.row, request.column), ("c", 24, 80));
        calls.answer(stream, &Empty::new()).await;
        for (least, most) in [(1, 1), (50, 60)] {
            let (stream, request) = calls.expect::<RemoveContainerRequest>("RemoveContainer").await;
            assert!((least..=most).contains(&request.timeout), "{}", request.timeout);
            calls.refuse(stream, Code::INTERNAL, "no").await;
        }
    };
    let host = async {
        let sandbox =
            CreateSandbox { id: "s".parse().unwrap(), hostname: "box".into(), dns: vec![], storages: vec![] };
        client.create_sandbox(&sandbox, generous()).await.unwrap();
        client.create_container(&create("c"), generous()).await.unwrap();
        let init = ProcessRef::init(&container("c"));
        let exec = ProcessRef { exec: Some("e".parse().unwrap()), ..init.clone() };
        client.signal(&SignalTarget::Process(init.clone()), Signal::TERM, generous()).await.unwrap();
        client.signal(&SignalTarget::All(container("c")), Signal::KILL, generous()).await.unwrap();
        client.signal(&SignalTarget::Process(exec), Signal::new(1).unwrap(), generous()).await.unwrap();
        client.resize_terminal(&init, TerminalSize { rows: 24, columns: 80 }, generous()).await.unwrap();
        let soon = Deadline::after(Duration::from_millis(900));
        client.remove_container(&container("c"), soon).await.unwrap_err();
        client.remove_container(&container("c"), generous()).await.unwrap_err();
    };
    tokio::join!(guest, host);
}

#[tokio::test]
async fn a_second_create_never_reaches_the_guest() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let guest = async {
        let (stream, _) = calls.expect::<CreateContainerRequest>("CreateContainer").await;
        calls.refuse(stream, Code::INTERNAL, "no disk\n\nStack backtrace:\n 0: main").await;
        let (stream, _) = calls.expect::<CreateContainerRequest>("CreateContainer").await;
        calls.answer(stream, &Empty::new()).await;
        let (stream, _) = calls.expect::<RemoveContainerRequest>("RemoveContainer").await;
        calls.answer(stream, &Empty::new()).await;
        let (stream, _) = calls.expect::<CreateContainerRequest>("CreateContainer").await;
        calls.answer(stream, &Empty::new()).await;
    };
    let host = async {
        let refused = client.create_container(&create("c"), generous()).await;
        assert!(
            matches!(&refused, Err(AgentError::Refused { detail, .. }) if detail == "no disk"),
            "{refused:?}"
        );
        client.create_container(&create("c"), generous()).await.unwrap();
        let second = client.create_container(&create("c"), generous()).await;
        assert!(matches!(second, Err(AgentError::ContainerExists { .. })), "{second:?}");
        client.remove_container(&container("c"), generous()).await.unwrap();
        client.create_container(&create("c"), generous()).await.unwrap();
    };
    tokio::join!(guest, host);
}

#[tokio::test]
async fn after_a_lost_answer_the_container_counts_as_created() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let guest = async {
        let (stream, _) = calls.expect::<CreateContainerRequest>("CreateContainer").await;
        let (removal, _) = calls.expect::<RemoveContainerRequest>("RemoveContainer").await;
        calls.answer(stream, &Empty::new()).await;
        calls.answer(removal, &Empty::new()).await;
    };
    let host = async {
        let late = client.create_container(&create("c"), Deadline::after(Duration::from_millis(100))).await;
        assert!(matches!(late, Err(AgentError::Deadline { call: Call::CreateContainer })), "{late:?}");
        let second = client.create_container(&create("c"), generous()).await;
        assert!(matches!(second, Err(AgentError::ContainerExists { .. })), "{second:?}");
        client.remove_container(&container("c"), generous()).await.unwrap();
    };
    tokio::join!(guest, host);
}

#[tokio::test]
async fn a_wait_that_was_dropped_is_taken_up_by_the_next() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let init = ProcessRef::init(&container("c"));
    let dropped = tokio::time::timeout(Duration::from_millis(50), client.wait(&init)).await;
    assert!(dropped.is_err());
    let (stream, request) = calls.expect::<WaitProcessRequest>("WaitProcess").await;
    assert_eq!(request.exec_id, "c");
    calls.answer(stream, &WaitProcessResponse { status: 137, ..Default::default() }).await;
    let (first, second) = tokio::join!(client.wait(&init), client.wait(&init));
    assert_eq!((first.unwrap(), second.unwrap()), (ExitStatus(137), ExitStatus(137)));
    drop(client);
    assert!(calls.request().await.is_none(), "one question went over the wire");
}

#[tokio::test]
async fn streams_carry_bounded_messages() {
    let peer = Peer::new();
    let (client, _calls, mut streams) = peer.client().await;
    let init = ProcessRef::init(&container("c"));
    let most = usize::try_from(vc_agent::client::MAX_CHUNK).unwrap();
    let guest = async {
        let (stream, request) = streams.expect::<WriteStreamRequest>("WriteStdin").await;
        assert_eq!(request.data.len(), most);
        streams.answer(stream, &WriteStreamResponse { len: 5, ..Default::default() }).await;
        let (stream, request) = streams.expect::<ReadStreamRequest>("ReadStdout").await;
        assert_eq!(request.len, vc_agent::client::MAX_CHUNK);
        let data = vec![7; most];
        streams.answer(stream, &ReadStreamResponse { data, ..Default::default() }).await;
        let (stream, request) = streams.expect::<ReadStreamRequest>("ReadStderr").await;
        assert_eq!(request.len, 1);
        streams.answer(stream, &ReadStreamResponse::new()).await;
        let (stream, _) = streams.expect::<WriteStreamRequest>("WriteStdin").await;
        streams.refuse(stream, Code::FAILED_PRECONDITION, "closed").await;
    };
    let host = async {
        assert_eq!(client.write_stdin(&init, b"").await.unwrap(), 0);
        assert_eq!(client.write_stdin(&init, &vec![1; 1 << 23]).await.unwrap(), 5);
        assert_eq!(client.read_stdout(&init, u32::MAX).await.unwrap().len(), most);
        assert!(matches!(client.read_stdout(&init, 0).await, Err(AgentError::Unsendable { .. })));
        assert!(client.read_stderr(&init, 1).await.unwrap().is_empty());
        let closed = client.write_stdin(&init, b"x").await;
        assert!(matches!(closed, Err(AgentError::StreamClosed)), "{closed:?}");
    };
    tokio::join!(guest, host);
}

#[tokio::test]
async fn a_request_too_large_for_the_wire_is_not_sent() {
    let peer = Peer::new();
    let (client, _calls, _streams) = peer.client().await;
    let mut request = create("c");
    request.storages[0].options = vec!["x".repeat(1 << 20); 4];
    let error = client.create_container(&request, generous()).await.unwrap_err();
    assert!(matches!(error, AgentError::Unsendable { call: Call::CreateContainer, .. }), "{error:?}");
}
