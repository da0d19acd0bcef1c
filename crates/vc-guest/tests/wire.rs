//! The services over a socket, as far as they need no virtual machine.

#[cfg(test)]
mod hostile;

use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use ttrpc::Code;
use ttrpc::asynchronous::Client;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context::{Context, with_duration};
use vc_agent_protocol::agent_ttrpc::AgentServiceClient;
use vc_agent_protocol::health::{CheckRequest, ServingStatus};
use vc_agent_protocol::health_ttrpc::HealthClient;
use vc_agent_protocol::{agent, oci};
use vc_guest::{Connections, DeviceEvents, Guest, ModuleLoader, Reaper, server};

/// An agent without containers, and the host's end of two connections to it.
struct Agent {
    first: Client,
    second: Option<UnixStream>,
    connections: Connections,
}

async fn agent() -> Agent {
    let modules = Arc::new(ModuleLoader::open("/nonexistent"));
    let (_, ready) = watch::channel(true);
    let (_, events) = watch::channel(0);
    let guest = Guest::new(Reaper::default(), modules, ready, DeviceEvents::from_receiver(events));
    let connections = Connections::default();
    let pair = || UnixStream::pair().expect("the host has sockets");
    let [(first, theirs), (second, theirs_too)] = [pair(), pair()];
    let server = server(guest);
    for stream in [theirs, theirs_too] {
        let (server, stream) = (server.clone(), connections.count(stream));
        tokio::spawn(async move { server.serve(stream).await });
    }
    Agent { first: Client::new(Socket::new(first)), second: Some(second), connections }
}

fn deadline() -> Context {
    with_duration(Duration::from_secs(60))
}

fn code<T: std::fmt::Debug>(answer: ttrpc::Result<T>) -> Code {
    match answer.expect_err("the call fails") {
        ttrpc::Error::RpcStatus(status) => status.code(),
        other => panic!("no status: {other:?}"),
    }
}

#[tokio::test]
async fn health_answers_and_names_the_version() {
    let agent = agent().await;
    let health = HealthClient::new(agent.first);
    let status = health.check(deadline(), &CheckRequest::new()).await.unwrap().status;
    assert_eq!(status, ServingStatus::SERVING.into());
    let version = health.version(deadline(), &CheckRequest::new()).await.unwrap();
    assert_eq!(version.agent_version, env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn what_is_not_there_is_told_by_codes() {
    let served = agent().await;
    let agent = AgentServiceClient::new(served.first.clone());
    let id = || "absent".to_owned();
    let start = agent::StartContainerRequest { container_id: id(), ..Default::default() };
    assert_eq!(code(agent.start_container(deadline(), &start).await), Code::INVALID_ARGUMENT);
    let wait = agent::WaitProcessRequest { container_id: id(), ..Default::default() };
    assert_eq!(code(agent.wait_process(deadline(), &wait).await), Code::INVALID_ARGUMENT);
    let read = agent::ReadStreamRequest { container_id: id(), len: 1, ..Default::default() };
    assert_eq!(code(agent.read_stdout(deadline(), &read).await), Code::INVALID_ARGUMENT);
    let remove = agent::RemoveContainerRequest { container_id: "../x".into(), ..Default::default() };
    assert_eq!(code(agent.remove_container(deadline(), &remove).await), Code::INVALID_ARGUMENT);
    let details = agent.get_guest_details(deadline(), &agent::GuestDetailsRequest::new()).await.unwrap();
    assert!(details.agent_details.storage_handlers.iter().any(|driver| driver == "scsi"));
}

/// What the guest refuses without touching anything, and what it has not.
#[tokio::test]
async fn refusals_have_the_codes_that_the_readme_names() {
    let served = agent().await;
    let agent = AgentServiceClient::new(served.first.clone());
    let copy = agent::CopyFileRequest { path: "/etc/passwd".into(), ..Default::default() };
    assert_eq!(code(agent.copy_file(deadline(), &copy).await), Code::INVALID_ARGUMENT);
    let probe = agent::MemHotplugByProbeRequest { mem_hotplug_probe_addr: vec![1], ..Default::default() };
    assert_eq!(code(agent.mem_hotplug_by_probe(deadline(), &probe).await), Code::UNIMPLEMENTED);
    let date = agent::SetGuestDateTimeRequest { sec: -1, ..Default::default() };
    assert_eq!(code(agent.set_guest_date_time(deadline(), &date).await), Code::INVALID_ARGUMENT);
    let reseed = agent::ReseedRandomDevRequest::new();
    assert_eq!(code(agent.reseed_random_dev(deadline(), &reseed).await), Code::INVALID_ARGUMENT);
    let volume =
        |path: &str| agent::VolumeStatsRequest { volume_guest_path: path.into(), ..Default::default() };
    assert_eq!(code(agent.get_volume_stats(deadline(), &volume("x")).await), Code::INVALID_ARGUMENT);
    assert_eq!(code(agent.get_volume_stats(deadline(), &volume("/nonexistent")).await), Code::NOT_FOUND);
    let swap = agent::AddSwapRequest::new();
    assert_eq!(code(agent.add_swap(deadline(), &swap).await), Code::INVALID_ARGUMENT);
    let interface = agent::UpdateInterfaceRequest::new();
    assert_eq!(code(agent.update_interface(deadline(), &interface).await), Code::INVALID_ARGUMENT);
    let memory = agent::Storage {
        driver: "ephemeral".into(),
        mount_point: "/run/nothing".into(),
        ..Default::default()
    };
    let update = agent::UpdateEphemeralMountsRequest { storages: vec![memory], ..Default::default() };
    assert_eq!(code(agent.update_ephemeral_mounts(deadline(), &update).await), Code::NOT_FOUND);
    let log = agent::GetDiagnosticDataRequest { log_type: "core".into(), ..Default::default() };
    assert_eq!(code(agent.get_diagnostic_data(deadline(), &log).await), Code::INVALID_ARGUMENT);
    let policy = agent::SetPolicyRequest::new();
    assert_eq!(code(agent.set_policy(deadline(), &policy).await), Code::UNIMPLEMENTED);
}

#[tokio::test]
async fn metrics_are_those_of_prometheus() {
    let served = agent().await;
    let agent = AgentServiceClient::new(served.first.clone());
    let metrics = agent.get_metrics(deadline(), &agent::GetMetricsRequest::new()).await.unwrap().metrics;
    assert!(metrics.contains("\nkata_guest_meminfo{item=\"memtotal\"} "), "{metrics}");
}

#[tokio::test]
async fn an_unusable_request_is_refused_and_its_id_stays_free() {
    let served = agent().await;
    let agent = AgentServiceClient::new(served.first.clone());
    let process = oci::Process { args: vec!["true".into()], cwd: "/".into(), ..Default::default() };
    let spec = oci::Spec {
        process: Some(process).into(),
        root: Some(oci::Root { path: "/run/rootfs".into(), ..Default::default() }).into(),
        linux: Some(oci::Linux::default()).into(),
        ..Default::default()
    };
    let good = agent::CreateContainerRequest {
        container_id: "box".into(),
        oci: Some(spec).into(),
        ..Default::default()
    };
    type Change = fn(&mut agent::CreateContainerRequest);
    let cases: [(Change, Code); 6] = [
        (|request| request.container_id = "a/b".into(), Code::INVALID_ARGUMENT),
        (|request| request.oci = None.into(), Code::INVALID_ARGUMENT),
        (
            |request| {
                let hooks = request.oci.as_mut().unwrap().hooks.mut_or_insert_default();
                hooks.poststop = vec![oci::Hook::default()];
            },
            Code::INVALID_ARGUMENT,
        ),
        (|request| request.storages = vec![agent::Storage::default()], Code::INVALID_ARGUMENT),
        (|request| request.stdin_port = 7, Code::UNIMPLEMENTED),
        (|request| request.sandbox_pidns = true, Code::UNIMPLEMENTED),
    ];
    for (change, want) in cases {
        let mut request = good.clone();
        change(&mut request);
        assert_eq!(code(agent.create_container(deadline(), &request).await), want);
    }
}

#[tokio::test]
async fn garbage_on_one_connection_leaves_the_other_alone() {
    let mut agent = agent().await;
    let mut second = agent.second.take().unwrap();
    // A frame of 4 GiB - 1 (ttrpc: length, stream id, type, flags), and then noise.
    second.write_all(&[0xff; 64]).await.unwrap();
    drop(second);
    let health = HealthClient::new(agent.first.clone());
    health.check(deadline(), &CheckRequest::new()).await.unwrap();
    drop((health, agent.first));
    let closed = tokio::time::timeout(Duration::from_secs(60), agent.connections.all_closed()).await;
    assert!(closed.is_ok(), "a connection stays open after the host has closed both");
}
