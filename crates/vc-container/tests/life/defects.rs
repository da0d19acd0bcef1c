//! Defects that are known of other orchestrators, one test each: what stays behind, what is done twice, what is
//! forgotten.

use std::num::NonZeroU32;

use vc_agent::Call;
use vc_agent::fake::{FakeAgent, Fault};
use vc_container::{Cause, Recovered, Sandbox, State, Step};
use vc_hypervisor::fake::{FakeHypervisor, Fault as MachineFault};
use vc_types::HostPath;

use crate::bench::{Bench, id, process};

/// The agent's calls before the first one of a container: Check, CreateSandbox, GetOOMEvent.
const CALLS_OF_A_SANDBOX: u32 = 3;

fn with_agent(n: u32, fault: Fault) -> Bench {
    let agent = FakeAgent::with_fault(NonZeroU32::new(CALLS_OF_A_SANDBOX + n).unwrap(), fault);
    Bench::new(FakeHypervisor::default(), agent)
}

fn with_hypervisor(n: u32, fault: MachineFault) -> Bench {
    Bench::new(FakeHypervisor::with_fault(NonZeroU32::new(n).unwrap(), fault), FakeAgent::new())
}

fn sound() -> Bench {
    Bench::new(FakeHypervisor::default(), FakeAgent::new())
}

/// L-31: without a deadline, a process that does not die held up every stop for ever.
#[tokio::test(start_paused = true)]
async fn l31_a_process_that_does_not_die_delays_a_stop_and_no_more() {
    // CreateContainer, StartContainer, SignalProcess, WaitProcess.
    let bench = with_agent(4, Fault::Hang);
    let sandbox = bench.sandbox().await.unwrap();
    let container = bench.container(&sandbox, "web").await.unwrap();
    container.start().await.unwrap();
    let timing = bench.spec.timing;
    let stopped = tokio::time::timeout(timing.kill + timing.undo, container.stop());
    assert!(stopped.await.unwrap().unwrap().is_empty());
    bench.assert_no_container("after the stop");
    let lost = container.wait().await.unwrap_err();
    assert!(matches!(lost.cause, Cause::ExitLost(_)), "{lost:?}");
}

/// L-32: a second stop failed at the step that the first one had made.
#[tokio::test]
async fn l32_a_stop_that_failed_half_way_goes_on_where_it_failed() {
    // CreateContainer, StartContainer, SignalProcess, WaitProcess, RemoveContainer.
    let bench = with_agent(5, Fault::Refuse);
    let sandbox = bench.sandbox().await.unwrap();
    let container = bench.container(&sandbox, "web").await.unwrap();
    container.start().await.unwrap();
    let left = container.stop().await.unwrap();
    assert_eq!(left[0].step, Step::Container(Call::RemoveContainer, id("web")), "{left:?}");
    assert_eq!((left.len(), bench.disks().len()), (3, 2), "disks wait for the guest: {left:?}");
    assert_eq!(container.status().unwrap().state, State::Stopped);
    assert!(container.stop().await.unwrap().is_empty());
    bench.assert_no_container("after the second stop");
    assert!(container.stop().await.unwrap().is_empty());
    container.delete().await.unwrap();
}

/// L-37: the table let a stopped container start, which was gone from the guest; pause and resume asked no table.
#[tokio::test]
async fn l37_every_operation_asks_the_table_and_what_is_stopped_stays_so() {
    let bench = sound();
    let sandbox = bench.sandbox().await.unwrap();
    let container = bench.container(&sandbox, "web").await.unwrap();
    let refused = |result: Result<(), vc_container::OperationError>| {
        let error = result.unwrap_err();
        assert!(matches!(error.cause, Cause::Refused(_)), "{error:?}");
    };
    refused(container.pause().await);
    refused(container.resume().await);
    container.start().await.unwrap();
    refused(container.resume().await);
    assert!(container.stop().await.unwrap().is_empty());
    let calls = bench.agent.calls().len();
    refused(container.start().await);
    refused(container.pause().await);
    refused(container.resume().await);
    assert_eq!(bench.agent.calls().len(), calls, "the guest was not bothered");
    assert_eq!(container.status().unwrap().state, State::Stopped);
    bench.assert_no_container("after a refused start");
}

/// L-38: whether a process had ended was read from an error's text.
#[tokio::test]
async fn l38_a_signal_to_a_process_that_has_ended_is_no_failure() {
    let bench = sound();
    let sandbox = bench.sandbox().await.unwrap();
    let container = bench.container(&sandbox, "web").await.unwrap();
    container.start().await.unwrap();
    let job = container.exec("job".parse().unwrap(), process("job")).await.unwrap();
    for _ in 0..2 {
        job.signal(vc_agent::Signal::TERM).await.unwrap();
        container.signal_all(vc_agent::Signal::KILL).await.unwrap();
    }
}

fn writes(sandbox: &Sandbox) -> u64 {
    sandbox.metrics().get("write record").map_or(0, |step| step.succeeded)
}

/// L-42: each change wrote a file for each container, a stop wrote everything twice, and taking over read each
/// container once for each container.
#[tokio::test(start_paused = true)]
async fn l42_a_change_is_one_write_however_many_containers_there_are() {
    let mut bench = sound();
    let state = HostPath::new(bench.path().join("state")).unwrap();
    bench.spec.state_dir = Some(state.clone());
    let sandbox = bench.sandbox().await.unwrap();
    for n in 0..20 {
        bench.container(&sandbox, &format!("other{n}")).await.unwrap();
    }
    let mut before = writes(&sandbox);
    let mut written = || {
        let now = writes(&sandbox);
        now - std::mem::replace(&mut before, now)
    };
    let web = bench.container(&sandbox, "web").await.unwrap();
    assert_eq!(written(), 2, "wanted, and made");
    web.start().await.unwrap();
    assert_eq!(written(), 1);
    web.pause().await.unwrap();
    web.resume().await.unwrap();
    assert_eq!(written(), 2);
    web.stats().await.unwrap();
    assert_eq!(written(), 0);
    let job = web.exec("job".parse().unwrap(), process("job")).await.unwrap();
    job.signal(vc_agent::Signal::TERM).await.unwrap();
    job.wait().await.unwrap();
    assert_eq!(written(), 2, "that it is, and how it ended");
    assert!(web.stop().await.unwrap().is_empty());
    assert_eq!(written(), 2, "how it ended, and what was released");
    assert!(web.stop().await.unwrap().is_empty());
    assert_eq!(written(), 0, "nothing has changed");
    web.delete().await.unwrap();
    assert_eq!(written(), 1);
    sandbox.leave().await;
    let connector = vc_agent::fake::FakeConnector::new(&bench.agent);
    let recovered = Sandbox::recover(&bench.hypervisor, &connector, &state, bench.spec.timing).await.unwrap();
    let Recovered::Resumed(sandbox) = recovered else { panic!("the machine lives") };
    assert_eq!((writes(&sandbox), sandbox.status().containers.len()), (0, 20), "all is as it was");
    let files = std::fs::read_dir(state.as_path()).unwrap().count();
    assert_eq!(files, 2, "the record and its lock");
    sandbox.stop().await.unwrap();
}

/// L-45: some failures gave an empty container along with the error.
#[tokio::test]
async fn l45_a_creation_that_fails_gives_no_container() {
    let bench = sound();
    let sandbox = bench.sandbox().await.unwrap();
    bench.missing_command(&sandbox, "web").await.unwrap_err();
    assert!(sandbox.container(&id("web")).is_none());
    assert!(sandbox.status().containers.is_empty());
    bench.container(&sandbox, "web").await.unwrap();
}

/// what a creation had attached was known to nobody until it was complete, and stayed when it was not.
#[tokio::test]
async fn r9_a_creation_that_fails_half_way_gives_back_what_it_attached() {
    // The launch, and then a disk for each of two layers.
    for fault in [MachineFault::Fail, MachineFault::Hang] {
        tokio::time::pause();
        let bench = with_hypervisor(3, fault);
        let sandbox = bench.sandbox().await.unwrap();
        let error = bench.container(&sandbox, "web").await.unwrap_err();
        assert!(error.left.is_empty() && matches!(error.step, Step::Plug { .. }), "{error:?}");
        bench.assert_no_container("after the failure");
        bench.container(&sandbox, "web").await.unwrap();
        tokio::time::resume();
    }
    let bench = with_agent(1, Fault::Refuse);
    let sandbox = bench.sandbox().await.unwrap();
    let error = bench.container(&sandbox, "web").await.unwrap_err();
    assert_eq!(error.step, Step::Container(Call::CreateContainer, id("web")), "{error:?}");
    bench.assert_no_container("after the refusal");
}

/// only what ran could be stopped; a container that was never started, or was paused, kept everything.
#[tokio::test]
async fn r10_what_was_never_started_or_is_paused_can_be_stopped() {
    let bench = sound();
    let sandbox = bench.sandbox().await.unwrap();
    let ready = bench.container(&sandbox, "ready").await.unwrap();
    let paused = bench.container(&sandbox, "paused").await.unwrap();
    paused.start().await.unwrap();
    paused.pause().await.unwrap();
    for container in [ready, paused] {
        assert!(container.stop().await.unwrap().is_empty(), "{}", container.id());
        container.delete().await.unwrap();
    }
    bench.assert_no_container("after both");
}

/// that a device could not be unplugged was logged, and its entry dropped.
#[tokio::test]
async fn r13_what_cannot_be_unplugged_is_told_and_stays_known() {
    // The launch, two disks, and the unplug of the first one.
    let bench = with_hypervisor(4, MachineFault::Fail);
    let sandbox = bench.sandbox().await.unwrap();
    let container = bench.container(&sandbox, "web").await.unwrap();
    let left = container.stop().await.unwrap();
    let disks = bench.disks();
    let told: Vec<_> = left.iter().map(|left| left.step.clone()).collect();
    assert_eq!(told, disks.iter().cloned().map(Step::Unplug).collect::<Vec<_>>());
    assert_eq!(told.len(), 1, "the other one went");
    assert!(container.stop().await.unwrap().is_empty());
    bench.assert_no_container("after the second stop");
}
