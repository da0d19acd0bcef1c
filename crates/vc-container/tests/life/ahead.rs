//! What is done for a container while the guest boots.

use std::num::NonZeroU32;

use vc_agent::fake::{FakeAgent, FakeConnector};
use vc_agent::{AgentError, Connect};
use vc_container::{Recovered, Sandbox, Step};
use vc_hypervisor::fake::{FakeHypervisor, Fault};
use vc_types::{AgentAddress, Deadline, HostPath};

use crate::bench::{Bench, id};

fn bench(hypervisor: FakeHypervisor) -> Bench {
    let mut bench = Bench::new(hypervisor, FakeAgent::new());
    bench.ahead("web");
    bench
}

/// An agent that does not answer before there is a disk.
struct AfterDisk {
    hypervisor: FakeHypervisor,
    agent: FakeAgent,
}

impl Connect for AfterDisk {
    type Agent = FakeAgent;

    async fn connect(&self, address: &AgentAddress, deadline: Deadline) -> Result<FakeAgent, AgentError> {
        while self.hypervisor.machines().values().all(Vec::is_empty) {
            if deadline.remaining().is_zero() {
                return Err(AgentError::Deadline { call: vc_agent::Call::Check });
            }
            tokio::task::yield_now().await;
        }
        FakeConnector::new(&self.agent).connect(address, deadline).await
    }
}

#[tokio::test]
async fn disks_are_plugged_before_the_agent_answers_and_are_the_containers() {
    let bench = bench(FakeHypervisor::default());
    let connector = AfterDisk { hypervisor: bench.hypervisor.clone(), agent: bench.agent.clone() };
    let sandbox = Sandbox::create(&bench.hypervisor, &connector, bench.spec.clone()).await.unwrap();
    let disks = bench.disks();
    // One that was not foreseen shares them, and is not in the way.
    let other = bench.container(&sandbox, "other").await.unwrap();
    other.stop().await.unwrap();
    assert_eq!(bench.disks(), disks);
    let web = bench.container(&sandbox, "web").await.unwrap();
    assert_eq!(bench.disks(), disks);
    web.start().await.unwrap();
    web.stop().await.unwrap();
    bench.assert_no_container("after the stop");
    sandbox.stop().await.unwrap();
    bench.assert_no_sandbox("after all");
}

#[tokio::test]
async fn what_cannot_be_plugged_ahead_fails_the_containers_creation_and_only_that() {
    let second = NonZeroU32::new(2).unwrap();
    let bench = bench(FakeHypervisor::with_fault(second, Fault::Fail));
    let sandbox = bench.sandbox().await.unwrap();
    let error = bench.container(&sandbox, "web").await.unwrap_err();
    assert!(matches!(error.step, Step::Plug { .. }) && error.left.is_empty(), "{error:?}");
    bench.assert_no_container("after the failure");
    bench.container(&sandbox, "web").await.unwrap().stop().await.unwrap();
    sandbox.stop().await.unwrap();
    bench.assert_no_sandbox("after all");
}

#[tokio::test]
async fn a_container_that_fails_later_gives_back_what_was_plugged_ahead() {
    let bench = bench(FakeHypervisor::default());
    let sandbox = bench.sandbox().await.unwrap();
    assert_eq!(bench.disks().len(), 2);
    bench.missing_command(&sandbox, "web").await.unwrap_err();
    bench.assert_no_container("after the failure");
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn a_sandbox_whose_container_never_came_leaves_nothing() {
    let bench = bench(FakeHypervisor::default());
    bench.sandbox().await.unwrap().stop().await.unwrap();
    bench.assert_no_sandbox("after the stop");
}

#[tokio::test]
async fn the_next_owner_gives_back_what_was_plugged_for_a_container_that_never_came() {
    let mut bench = bench(FakeHypervisor::default());
    let state = HostPath::new(bench.path().join("state")).unwrap();
    bench.spec.state_dir = Some(state.clone());
    let sandbox = bench.sandbox().await.unwrap();
    let record = std::fs::read_to_string(state.as_path().join("record.json")).unwrap();
    assert!(bench.disks().iter().all(|disk| record.contains(disk.as_str())), "{record}");
    bench.own_container(&sandbox, "other").await.unwrap();
    assert_eq!(bench.disks().len(), 3);
    sandbox.leave().await;
    let connector = FakeConnector::new(&bench.agent);
    let recovered = Sandbox::recover(&bench.hypervisor, &connector, &state, bench.spec.timing).await.unwrap();
    let Recovered::Resumed(sandbox) = recovered else { panic!("{recovered:?}") };
    assert_eq!(bench.disks().len(), 1);
    assert!(sandbox.container(&id("other")).is_some());
    sandbox.stop().await.unwrap();
}
