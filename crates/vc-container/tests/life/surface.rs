//! Everything that can be asked of a container besides its plain life.

use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use tokio::time::Instant;
use vc_agent::fake::{FakeAgent, Fault};
use vc_agent::{Call, ExitStatus, ProcessRef, Signal};
use vc_container::{Cause, Container, Sandbox, State, Stream};
use vc_hypervisor::MemoryGrowth;
use vc_hypervisor::fake::FakeHypervisor;
use vc_types::{ExecId, MiB};

use crate::bench::{Bench, id, process};

fn exec_id(name: &str) -> ExecId {
    name.parse().unwrap()
}

fn executed(exec: &str) -> ProcessRef {
    ProcessRef { container: id("web"), exec: Some(exec_id(exec)) }
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

async fn running(agent: FakeAgent) -> (Bench, Sandbox, Container) {
    let bench = Bench::new(FakeHypervisor::default(), agent);
    let sandbox = bench.sandbox().await.unwrap();
    let container = bench.container(&sandbox, "web").await.unwrap();
    container.start().await.unwrap();
    (bench, sandbox, container)
}

/// An agent whose calls go well up to `n` calls after a container runs.
fn failing_after_start(n: u32, fault: Fault) -> FakeAgent {
    // Check, CreateSandbox, GetOOMEvent, CreateContainer, StartContainer.
    FakeAgent::with_fault(NonZeroU32::new(5 + n).unwrap(), fault)
}

#[tokio::test]
async fn a_process_beside_the_first_has_streams_signals_and_an_end_of_its_own() {
    let (bench, _sandbox, container) = running(FakeAgent::new()).await;
    let shell = container.exec(exec_id("shell"), process("sh")).await.unwrap();
    let twin = container.exec(exec_id("shell"), process("sh")).await.unwrap_err();
    assert!(matches!(twin.cause, Cause::ProcessExists), "{twin:?}");
    bench.agent.print(&executed("shell"), b"hello");
    assert_eq!(shell.read(Stream::Stdout, 100).await.unwrap(), b"hello");
    assert_eq!(shell.write_stdin(b"in".to_vec()).await.unwrap(), 2);
    assert_eq!(bench.agent.take_input(&executed("shell")), b"in");
    assert_eq!(container.status().unwrap().processes[&exec_id("shell")], None);
    shell.signal(Signal::TERM).await.unwrap();
    assert_eq!(shell.wait().await.unwrap(), ExitStatus(143));
    assert_eq!(shell.wait().await.unwrap(), ExitStatus(143), "as often as one likes");
    assert_eq!(container.status().unwrap().state, State::Running);
    shell.signal(Signal::TERM).await.unwrap();
    let again = container.exec(exec_id("shell"), process("sh")).await.unwrap();
    container.signal_all(Signal::KILL).await.unwrap();
    assert_eq!(again.wait().await.unwrap(), ExitStatus(137));
    assert_eq!(container.wait().await.unwrap(), ExitStatus(137));
    let late = container.exec(exec_id("late"), process("sh")).await.unwrap_err();
    assert!(matches!(late.cause, Cause::NotNow(State::Stopped)), "{late:?}");
}

#[tokio::test]
async fn a_process_that_has_ended_is_forgotten_with_its_last_handle() {
    let (bench, _sandbox, container) = running(FakeAgent::new()).await;
    for round in 0..3 {
        let name = format!("exec{round}");
        let job = container.exec(exec_id(&name), process("job")).await.unwrap();
        bench.agent.end(&executed(&name), ExitStatus(3));
        assert_eq!(job.wait().await.unwrap(), ExitStatus(3));
        assert!(container.status().unwrap().processes.len() <= 2, "round {round}");
    }
    let missing = container.exec(exec_id("missing"), process("missing")).await.unwrap_err();
    assert!(matches!(missing.cause, Cause::Agent(_)), "{missing:?}");
    assert_eq!(container.status().unwrap().processes.len(), 0, "nobody has a handle any more");
}

#[tokio::test]
async fn a_paused_container_goes_on_where_it_was() {
    let (_bench, _sandbox, container) = running(FakeAgent::new()).await;
    let early = container.resume().await.unwrap_err();
    assert!(matches!(early.cause, Cause::Refused(_)), "{early:?}");
    container.pause().await.unwrap();
    assert_eq!(container.status().unwrap().state, State::Paused);
    let twice = container.pause().await.unwrap_err();
    assert!(matches!(twice.cause, Cause::Refused(_)), "{twice:?}");
    container.resume().await.unwrap();
    assert_eq!(container.status().unwrap().state, State::Running);
    container.pause().await.unwrap();
    assert!(container.stop().await.unwrap().is_empty(), "paused or not");
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_nobody_heard_of_is_taken_back() {
    for fault in [Fault::Hang, Fault::AnswerLate] {
        let (_bench, _sandbox, container) = running(failing_after_start(1, fault)).await;
        let error = container.pause().await.unwrap_err();
        assert!(error.left.is_empty(), "{fault:?}: {error:?}");
        assert_eq!(container.status().unwrap().state, State::Running);
        container.pause().await.unwrap();
    }
}

#[tokio::test]
async fn l40_stats_tell_of_the_network_too() {
    let interface = vc_agent::Interface { name: "eth0".into(), ..Default::default() };
    let (_bench, sandbox, container) = running(FakeAgent::new().interface(interface)).await;
    let stats = container.stats().await.unwrap();
    assert_eq!(stats.pids.current, 1);
    assert!(stats.network.iter().any(|interface| interface.name == "eth0"), "{stats:?}");
    assert_eq!(sandbox.stats().await.unwrap().vcpus.len(), 1);
    assert!(sandbox.metrics()["create container"].succeeded == 1, "{:?}", sandbox.metrics());
}

#[tokio::test]
async fn an_update_grows_the_machine_and_tells_what_it_has() {
    let agent = FakeAgent::new().plugged_processors(3);
    let mut bench = Bench::new(FakeHypervisor::default(), agent);
    bench.spec.machine.max_vcpus = NonZeroU8::new(4).unwrap();
    bench.spec.machine.memory_growth = MemoryGrowth::Dimms { most: MiB::new(1024).unwrap() };
    let sandbox = bench.sandbox().await.unwrap();
    let container = bench.container(&sandbox, "web").await.unwrap();
    assert_eq!(sandbox.status().size, None, "nothing has changed");
    let limits =
        r#"{"cpu": {"quota": 200000, "period": 100000, "cpus": "0-1"}, "memory": {"limit": 268435456}}"#;
    let size = container.update(resources(limits)).await.unwrap();
    assert_eq!((size.vcpus.get(), size.memory.get()), (3, 512));
    assert_eq!(sandbox.status().size, Some(size));
    assert_eq!(container.stats().await.unwrap().memory.usage.limit, 256 << 20);
    let more = container.update(resources(r#"{"cpu": {"quota": 9900000}}"#)).await.unwrap();
    assert_eq!(more.vcpus.get(), 4, "as far as it can");
    assert!(bench.agent.calls().iter().any(|(call, _)| *call == Call::OnlineCPUMem));
}

#[tokio::test(start_paused = true)]
async fn l39_a_refused_update_restores_what_was() {
    for fault in [Fault::Refuse, Fault::Hang, Fault::AnswerLate] {
        let (_bench, _sandbox, container) = running(failing_after_start(2, fault)).await;
        container.update(resources(r#"{"memory": {"limit": 1048576}}"#)).await.unwrap();
        let error = container.update(resources(r#"{"memory": {"limit": 4194304}}"#)).await.unwrap_err();
        assert!(error.left.is_empty(), "{fault:?}: {error:?}");
        assert_eq!(container.stats().await.unwrap().memory.usage.limit, 1 << 20, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn l43_a_bad_cpu_set_is_refused_before_anything_changes() {
    let (bench, _sandbox, container) = running(FakeAgent::new()).await;
    let error = container.update(resources(r#"{"cpu": {"cpus": "0-x"}}"#)).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Size(_)), "{error:?}");
    assert!(bench.agent.calls().iter().all(|(call, _)| *call != Call::UpdateContainer));
}

#[tokio::test(start_paused = true)]
async fn l31_l46_status_signals_and_stats_wait_for_no_stop_and_no_stats() {
    // The first call after the start hangs: the removal's SIGKILL, and then the figures.
    let (bench, sandbox, container) = running(failing_after_start(2, Fault::Hang)).await;
    let other = bench.container(&sandbox, "other").await.unwrap();
    let began = Instant::now();
    let stats = async {
        other.stats().await.unwrap_err();
        assert!(began.elapsed() >= bench.spec.timing.request, "{:?}", began.elapsed());
    };
    let quick = async {
        other.signal(Signal::TERM).await.unwrap();
        container.stats().await.unwrap();
        assert!(container.stop().await.unwrap().is_empty());
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    };
    tokio::join!(stats, quick);
}

#[tokio::test(start_paused = true)]
async fn l32_a_stop_by_force_ends_the_machine_and_hides_nothing() {
    let (bench, sandbox, container) = running(failing_after_start(3, Fault::Hang)).await;
    // SIGKILL, the wait, and the removal, which hangs.
    let stopped = container.stop_by_force().await.unwrap();
    assert!(!stopped.escalated.is_empty() && stopped.left.is_empty(), "{stopped:?}");
    assert!(sandbox.status().machine_exit.is_some());
    assert!(bench.hypervisor.machines().is_empty());
    container.delete().await.unwrap();
}

#[tokio::test]
async fn want_of_memory_is_counted() {
    let agent = FakeAgent::new().program("hog", vc_agent::fake::Program::Hogs);
    let (_bench, _sandbox, container) = running(agent).await;
    container.update(resources(r#"{"memory": {"limit": 1048576}}"#)).await.unwrap();
    let hog = container.exec(exec_id("hog"), process("hog")).await.unwrap();
    assert_eq!(hog.wait().await.unwrap(), ExitStatus(137));
    while container.status().unwrap().oom_kills == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_falls_silent_is_told() {
    let agent = FakeAgent::with_fault(NonZeroU32::new(4).unwrap(), Fault::Hang);
    let mut bench = Bench::new(FakeHypervisor::default(), agent);
    bench.spec.timing.health = Some(Duration::from_secs(10));
    let mut sandbox = bench.sandbox().await.unwrap();
    while !sandbox.status().guest_is_silent {
        assert!(sandbox.status_changed().await);
    }
    while sandbox.status().guest_is_silent {
        assert!(sandbox.status_changed().await);
    }
}
