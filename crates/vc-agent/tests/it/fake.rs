//! The fake refuses what a guest refuses, and goes wrong as it is told to.

use std::num::NonZeroU32;
use std::time::Duration;

use vc_agent::conformance::{Fixture, Workload};
use vc_agent::fake::{FakeAgent, FakeConnector, Fault, Left};
use vc_agent::{
    AgentError, Call, Connect, Containers, CreateContainer, ExitStatus, Guest, ProcessRef, Processes, Signal,
    SignalTarget, StorageDriver, Streams,
};
use vc_types::{AgentAddress, ContainerId, Deadline, HostPath};

use crate::fixture::{FakeFixture, storage};
use crate::peer::generous;

fn request(id: &str) -> CreateContainer {
    FakeFixture.container(&id.parse::<ContainerId>().unwrap(), Workload::Waits)
}

async fn sandbox() -> FakeAgent {
    let agent = FakeAgent::new();
    agent.create_sandbox(&FakeFixture.sandbox(), generous()).await.unwrap();
    agent
}

/// Connects, creates a container and takes everything down again; on a failure takes down what may be
/// there.
async fn life(agent: &FakeAgent) -> Result<(), AgentError> {
    let address = AgentAddress::Unix { socket: HostPath::new("/none").unwrap() };
    let agent = FakeConnector::new(agent).connect(&address, generous()).await?;
    let lived = async {
        agent.create_sandbox(&FakeFixture.sandbox(), generous()).await?;
        let request = request("c");
        agent.create_container(&request, generous()).await?;
        agent.start_container(&request.id, generous()).await?;
        let target = SignalTarget::Process(ProcessRef::init(&request.id));
        agent.signal(&target, Signal::KILL, generous()).await?;
        agent.wait(&ProcessRef::init(&request.id)).await?;
        agent.remove_container(&request.id, generous()).await
    };
    let lived = lived.await;
    let ended = agent.destroy_sandbox(generous()).await;
    lived.and(ended)
}

#[tokio::test(start_paused = true)]
async fn every_call_can_be_made_to_fail_in_every_way() {
    for fault in [Fault::Refuse, Fault::Hang, Fault::AnswerLate, Fault::Disconnect] {
        for n in 1..=9 {
            let agent = FakeAgent::with_fault(NonZeroU32::new(n).unwrap(), fault);
            let life = tokio::time::timeout(Duration::from_secs(3600), life(&agent)).await;
            assert_eq!(agent.has_failed(), n < 9, "{fault:?} at {n}");
            let waits_for_ever = n == 6 && matches!(fault, Fault::Hang | Fault::AnswerLate);
            match life {
                Err(_) => assert!(waits_for_ever, "{fault:?} at {n} hangs"),
                Ok(result) => assert_eq!(result.is_err(), n < 9, "{fault:?} at {n}: {result:?}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_leaves_what_was_done_and_a_refusal_does_not() {
    for (fault, expected) in [(Fault::AnswerLate, 1), (Fault::Refuse, 0), (Fault::Hang, 0)] {
        let agent = FakeAgent::with_fault(NonZeroU32::new(2).unwrap(), fault);
        agent.create_sandbox(&FakeFixture.sandbox(), generous()).await.unwrap();
        agent.create_container(&request("c"), generous()).await.unwrap_err();
        assert_eq!(agent.left().containers.len(), expected, "{fault:?}");
    }
}

#[tokio::test]
async fn mounts_are_counted_undone_and_need_their_layers() {
    let agent = sandbox().await;
    let (first, second) = (request("first"), request("second"));
    agent.create_container(&first, generous()).await.unwrap();
    agent.create_container(&second, generous()).await.unwrap();
    assert_eq!(agent.left().mounts.len(), 3, "the layer is shared");
    agent.remove_container(&first.id, generous()).await.unwrap();
    assert_eq!(agent.left().mounts.len(), 2);
    agent.remove_container(&second.id, generous()).await.unwrap();
    assert_eq!(agent.left().mounts, []);

    let mut unordered = request("unordered");
    unordered.storages.reverse();
    let refused = agent.create_container(&unordered, generous()).await;
    assert!(matches!(refused, Err(AgentError::Refused { .. })), "{refused:?}");
    let mut half = request("half");
    half.storages.push(storage(
        StorageDriver::Overlay,
        "/run/x",
        &["ro", "lowerdir=/run/layers/base:/run/none"],
    ));
    agent.create_container(&half, generous()).await.unwrap_err();
    assert_eq!(agent.left().mounts, []);
    agent.destroy_sandbox(generous()).await.unwrap();
    assert_eq!(agent.left(), Left::default());
}

#[tokio::test]
async fn no_container_comes_without_a_sandbox() {
    let agent = FakeAgent::new();
    agent.create_container(&request("c"), generous()).await.unwrap_err();
    agent.destroy_sandbox(generous()).await.unwrap_err();
    agent.check(generous()).await.unwrap();
    assert_eq!(agent.left(), Left::default());
}

#[tokio::test]
async fn a_test_speaks_for_the_process() {
    let agent = sandbox().await;
    let request = request("c");
    agent.create_container(&request, generous()).await.unwrap();
    agent.start_container(&request.id, generous()).await.unwrap();
    let init = ProcessRef::init(&request.id);
    let reader = tokio::spawn({
        let (agent, init) = (agent.clone(), init.clone());
        async move { agent.read_stdout(&init, 100).await }
    });
    let waiter = tokio::spawn({
        let (agent, init) = (agent.clone(), init.clone());
        async move { agent.wait(&init).await }
    });
    tokio::task::yield_now().await;
    agent.print(&init, b"hello");
    assert_eq!(reader.await.unwrap().unwrap(), b"hello");
    agent.write_stdin(&init, b"hi").await.unwrap();
    assert_eq!(agent.take_input(&init), b"hi");
    agent.end(&init, ExitStatus(3));
    assert!(agent.read_stdout(&init, 100).await.unwrap().is_empty());
    assert_eq!(waiter.await.unwrap().unwrap(), ExitStatus(3));
    let late = agent.read_stdout(&init, 100).await;
    assert!(matches!(late, Err(AgentError::NoSuchProcess { .. })), "streams go with the status: {late:?}");
    let calls: Vec<Call> = agent.calls().into_iter().map(|(call, _)| call).collect();
    assert_eq!(calls[..3], [Call::CreateSandbox, Call::CreateContainer, Call::StartContainer]);
}

#[tokio::test]
async fn when_the_guest_goes_everyone_is_told() {
    let agent = sandbox().await;
    let request = request("c");
    agent.create_container(&request, generous()).await.unwrap();
    let init = ProcessRef::init(&request.id);
    let waiter = tokio::spawn({
        let (agent, init) = (agent.clone(), init.clone());
        async move { agent.wait(&init).await }
    });
    tokio::task::yield_now().await;
    agent.disconnect();
    assert!(matches!(waiter.await.unwrap(), Err(AgentError::Disconnected { call: Call::WaitProcess })));
    let late = agent.check(Deadline::after(Duration::from_secs(1))).await;
    assert!(matches!(late, Err(AgentError::Disconnected { call: Call::Check })));
}
