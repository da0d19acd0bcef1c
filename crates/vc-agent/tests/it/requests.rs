//! What goes over the wire for each call, and what its answers come to.

use std::time::{Duration, UNIX_EPOCH};

use oci_spec::runtime::{ProcessBuilder, Spec, SpecBuilder};
use ttrpc::Code;
use vc_agent::{
    AgentError, Call, Containers, CreateContainer, CreateSandbox, ExecProcess, ExitStatus, Guest, ProcessRef,
    Processes, Signal, SignalTarget, Storage, StorageDriver, Streams, System, TerminalSize,
};
use vc_agent_protocol::agent::*;
use vc_types::{ContainerId, Deadline, GuestPath};

use crate::peer::{Peer, generous};

fn container(id: &str) -> ContainerId {
    id.parse().unwrap()
}

fn spec() -> Spec {
    let process = ProcessBuilder::default().args(vec!["true".to_owned()]).cwd("/").build().unwrap();
    SpecBuilder::default().process(process).build().unwrap()
}

pub(crate) fn create(id: &str) -> CreateContainer {
    let mount_point = GuestPath::new("/run/vc/layers/0").unwrap();
    let storage = Storage {
        driver_options: vec!["o=1".to_owned()],
        options: vec!["ro".to_owned()],
        ..Storage::new(StorageDriver::Block, "05/00", "erofs", mount_point)
    };
    CreateContainer { storages: vec![storage], ..CreateContainer::new(container(id), spec()) }
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
        let sandbox = CreateSandbox { hostname: "box".into(), ..CreateSandbox::new("s".parse().unwrap()) };
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

#[tokio::test]
async fn l38_a_signal_to_what_has_ended_is_already_gone_in_every_encoding() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let answers = [
        (Code::NOT_FOUND, "no such process"),
        (Code::INTERNAL, "signal: ESRCH: No such process\n\nStack backtrace:\n 0: main"),
        (Code::UNKNOWN, "rpc error: ESRCH: No such process"),
    ];
    let guest = async {
        for (code, words) in answers {
            let (stream, _) = calls.expect::<SignalProcessRequest>("SignalProcess").await;
            calls.refuse(stream, code, words).await;
        }
    };
    let host = async {
        let target = SignalTarget::Process(ProcessRef::init(&container("c")));
        for _ in answers {
            let gone = client.signal(&target, Signal::TERM, generous()).await;
            assert!(matches!(gone, Err(AgentError::AlreadyGone)), "{gone:?}");
        }
    };
    tokio::join!(guest, host);
}

#[tokio::test]
async fn l40_the_traffic_of_the_network_reaches_the_caller() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let guest = async {
        let (stream, request) = calls.expect::<StatsContainerRequest>("StatsContainer").await;
        assert_eq!(request.container_id, "c");
        let network = NetworkStats {
            name: "eth0".to_owned(),
            rx_bytes: 1,
            rx_packets: 2,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 5,
            tx_packets: 6,
            tx_errors: 7,
            tx_dropped: 8,
            ..Default::default()
        };
        let answer = StatsContainerResponse { network_stats: vec![network], ..Default::default() };
        calls.answer(stream, &answer).await;
    };
    let id = container("c");
    let (stats, ()) = tokio::join!(client.container_stats(&id, generous()), guest);
    let network = stats.unwrap().network;
    let eth0 = &network[0];
    let traffic = |t: vc_agent::Traffic| [t.bytes, t.packets, t.errors, t.dropped];
    assert_eq!(
        (eth0.name.as_str(), traffic(eth0.received), traffic(eth0.sent)),
        ("eth0", [1, 2, 3, 4], [5, 6, 7, 8])
    );
}

#[tokio::test]
async fn what_the_protocol_cannot_carry_is_refused_by_name_and_not_sent() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let mut request = create("c");
    let process = r#"{"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0, "umask": 23}}"#;
    let process: oci_spec::runtime::Process = serde_json::from_str(process).unwrap();
    request.spec.set_process(Some(process.clone()));
    let refused = client.create_container(&request, generous()).await;
    let Err(AgentError::NotCarried { call: Call::CreateContainer, fields }) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(fields, &["process.user.umask"]);
    let exec = ExecProcess { container: container("c"), exec: "e".parse().unwrap(), process };
    let refused = client.exec(&exec, generous()).await;
    let Err(AgentError::NotCarried { call: Call::ExecProcess, fields }) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(fields, &["user.umask"]);
    let unified = serde_json::from_str(r#"{"unified": {"memory.high": "1"}}"#).unwrap();
    let refused = client.update_container(&container("c"), &unified, generous()).await;
    assert!(
        matches!(refused, Err(AgentError::NotCarried { call: Call::UpdateContainer, .. })),
        "{refused:?}"
    );
    drop(client);
    assert!(calls.request().await.is_none(), "nothing went over the wire");
}

#[tokio::test]
async fn an_invalid_argument_of_an_exec_is_cleared_up() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let exec = ExecProcess {
        container: container("c"),
        exec: "e".parse().unwrap(),
        process: spec().process().clone().unwrap(),
    };
    let guest = async {
        for known in [true, false] {
            let (stream, request) = calls.expect::<ExecProcessRequest>("ExecProcess").await;
            assert_eq!((request.container_id.as_str(), request.exec_id.as_str()), ("c", "e"));
            calls.refuse(stream, Code::INVALID_ARGUMENT, "something is wrong").await;
            let (stream, _) = calls.expect::<StatsContainerRequest>("StatsContainer").await;
            if known {
                calls.answer(stream, &StatsContainerResponse::new()).await;
            } else {
                calls.refuse(stream, Code::INVALID_ARGUMENT, "no such container").await;
            }
        }
        let (stream, _) = calls.expect::<ExecProcessRequest>("ExecProcess").await;
        calls.refuse(stream, Code::ALREADY_EXISTS, "e").await;
    };
    let host = async {
        let refused = client.exec(&exec, generous()).await;
        assert!(matches!(refused, Err(AgentError::Refused { call: Call::ExecProcess, .. })), "{refused:?}");
        let unknown = client.exec(&exec, generous()).await;
        assert!(
            matches!(unknown, Err(AgentError::NoSuchContainer { call: Call::ExecProcess, .. })),
            "{unknown:?}"
        );
        let exists = client.exec(&exec, generous()).await;
        assert!(matches!(exists, Err(AgentError::ProcessExists { .. })), "{exists:?}");
    };
    tokio::join!(guest, host);
}

#[tokio::test]
async fn swap_by_a_function_and_time_before_1970_cannot_be_sent() {
    let peer = Peer::new();
    let (client, mut calls, _streams) = peer.client().await;
    let guest = async {
        let (stream, request) = calls.expect::<AddSwapRequest>("AddSwap").await;
        assert_eq!(request.pci_path, [5, 0]);
        calls.answer(stream, &Empty::new()).await;
        let (stream, request) = calls.expect::<SetGuestDateTimeRequest>("SetGuestDateTime").await;
        assert_eq!((request.sec, request.usec), (7, 8));
        calls.answer(stream, &Empty::new()).await;
    };
    let host = async {
        client.add_swap(&"05/00".parse().unwrap(), generous()).await.unwrap();
        let function = client.add_swap(&"08.1/00".parse().unwrap(), generous()).await;
        assert!(matches!(function, Err(AgentError::Unsendable { call: Call::AddSwap, .. })), "{function:?}");
        client.set_time(UNIX_EPOCH + Duration::from_micros(7_000_008), generous()).await.unwrap();
        let before = client.set_time(UNIX_EPOCH - Duration::from_secs(1), generous()).await;
        assert!(matches!(before, Err(AgentError::Unsendable { .. })), "{before:?}");
    };
    tokio::join!(guest, host);
}
