//! How a life should go, and who waits for whom.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;
use vc_agent::fake::{FakeAgent, Fault};
use vc_agent::{Call, ExitStatus, ProcessRef, Signal};
use vc_container::{Cause, State, Stream};
use vc_hypervisor::fake::FakeHypervisor;

use crate::bench::{Bench, id};

fn bench() -> Bench {
    Bench::new(FakeHypervisor::default(), FakeAgent::new())
}

fn nth(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_life_from_the_first_to_the_last_step() {
    let bench = bench();
    let sandbox = bench.sandbox().await.unwrap();
    let container = bench.container(&sandbox, "web").await.unwrap();
    assert_eq!(container.status().unwrap().state, State::Ready);
    assert_eq!(bench.disks().len(), 2, "one disk for each layer");
    container.start().await.unwrap();
    assert_eq!(container.status().unwrap().state, State::Running);
    let process = ProcessRef::init(&id("web"));
    bench.agent.print(&process, b"hello");
    assert_eq!(container.read(Stream::Stdout, 100).await.unwrap(), b"hello");
    assert_eq!(container.write_stdin(b"in".to_vec()).await.unwrap(), 2);
    assert_eq!(bench.agent.take_input(&process), b"in");
    bench.agent.end(&process, ExitStatus(3));
    assert_eq!(container.wait().await.unwrap(), ExitStatus(3));
    assert_eq!(container.wait().await.unwrap(), ExitStatus(3), "as often as one likes");
    assert_eq!(container.status().unwrap().state, State::Stopped);
    assert!(container.stop().await.unwrap().is_empty());
    bench.assert_no_container("after the stop");
    container.delete().await.unwrap();
    assert_eq!(container.status(), None);
    sandbox.stop().await.unwrap();
    bench.assert_no_sandbox("after the end");
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn d7_freed_disk_names_are_used_again() {
    let bench = bench();
    let sandbox = bench.sandbox().await.unwrap();
    let first = bench.own_container(&sandbox, "first").await.unwrap();
    bench.own_container(&sandbox, "second").await.unwrap();
    let taken = bench.disks();
    assert_eq!(taken.len(), 2);
    first.stop().await.unwrap();
    first.delete().await.unwrap();
    assert_eq!(bench.disks(), taken[1..]);
    bench.own_container(&sandbox, "third").await.unwrap();
    assert_eq!(bench.disks(), taken);
}

/// the entry went with its first user, and with anybody's failure.
#[tokio::test]
async fn r1_r2_containers_with_the_same_layers_share_the_disks_until_the_last_one_goes() {
    let bench = bench();
    let sandbox = bench.sandbox().await.unwrap();
    let (one, two) = tokio::join!(bench.container(&sandbox, "one"), bench.container(&sandbox, "two"));
    let (one, two) = (one.unwrap(), two.unwrap());
    let disks = bench.disks();
    assert_eq!(disks.len(), 2, "one disk for each layer, whoever has it");
    bench.missing_command(&sandbox, "three").await.unwrap_err();
    assert_eq!(bench.disks(), disks, "the failure of another changes nothing");
    assert!(one.stop().await.unwrap().is_empty());
    assert_eq!(bench.disks(), disks, "the second one uses them");
    two.start().await.unwrap();
    assert!(two.stop().await.unwrap().is_empty());
    bench.assert_no_container("after the last one");
}

#[tokio::test]
async fn what_is_not_for_the_state_is_refused() {
    let bench = bench();
    let sandbox = bench.sandbox().await.unwrap();
    let container = bench.container(&sandbox, "web").await.unwrap();
    let twin = bench.container(&sandbox, "web").await.unwrap_err();
    assert!(matches!(twin.cause, Cause::Exists), "{twin:?}");
    let early = container.delete().await.unwrap_err();
    assert!(matches!(early.cause, Cause::Refused(_)), "{early:?}");
    container.start().await.unwrap();
    let twice = container.start().await.unwrap_err();
    assert!(matches!(twice.cause, Cause::Refused(_)), "{twice:?}");
    container.stop().await.unwrap();
    let late = container.signal(Signal::TERM).await.unwrap_err();
    assert!(matches!(late.cause, Cause::NotNow(State::Stopped)), "{late:?}");
    container.delete().await.unwrap();
    let gone = container.signal(Signal::TERM).await.unwrap_err();
    assert!(matches!(gone.cause, Cause::NoSuchContainer), "{gone:?}");
}

#[tokio::test]
async fn a_stop_kills_what_runs_and_tells_those_who_wait() {
    let bench = bench();
    let sandbox = bench.sandbox().await.unwrap();
    let container = bench.container(&sandbox, "web").await.unwrap();
    container.start().await.unwrap();
    let waiter = tokio::spawn({
        let container = container.clone();
        async move { container.wait().await }
    });
    assert!(container.stop().await.unwrap().is_empty());
    assert_eq!(waiter.await.unwrap().unwrap(), ExitStatus(137));
    bench.assert_no_container("after the stop");
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_hangs_holds_up_nobody_else() {
    // Check, CreateSandbox, GetOOMEvent, and then the first CreateContainer.
    let agent = FakeAgent::with_fault(nth(4), Fault::Hang);
    let bench = Bench::new(FakeHypervisor::default(), agent);
    let sandbox = bench.sandbox().await.unwrap();
    let began = Instant::now();
    let slow = async {
        let failed = bench.container(&sandbox, "slow").await.unwrap_err();
        assert!(matches!(failed.cause, Cause::Agent(_)), "{failed:?}");
        began.elapsed()
    };
    let quick = async {
        while sandbox.status().containers.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(sandbox.status().containers[&id("slow")].state, State::Creating);
        let container = bench.container(&sandbox, "quick").await.unwrap();
        container.start().await.unwrap();
        container.signal(Signal::TERM).await.unwrap();
        container.wait().await.unwrap();
        began.elapsed()
    };
    let (slow, quick) = tokio::join!(slow, quick);
    assert!(quick < Duration::from_secs(1), "{quick:?}");
    assert!(slow >= bench.spec.timing.request, "{slow:?}");
    assert_eq!(bench.disks().len(), 2, "those of the quick one");
}

#[tokio::test]
async fn a_caller_who_leaves_changes_nothing() {
    let bench = bench();
    let sandbox = bench.sandbox().await.unwrap();
    {
        let creation = bench.container(&sandbox, "web");
        tokio::pin!(creation);
        let left = futures::poll!(&mut creation);
        assert!(left.is_pending());
    }
    let mut state = None;
    while state != Some(State::Ready) {
        tokio::task::yield_now().await;
        state = sandbox.status().containers.get(&id("web")).map(|status| status.state);
    }
    assert_eq!(bench.disks().len(), 2);
    assert_eq!(bench.agent.left().containers, [id("web")]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_machine_ends_every_wait() {
    let bench = bench();
    let sandbox = bench.sandbox().await.unwrap();
    let container = bench.container(&sandbox, "web").await.unwrap();
    container.start().await.unwrap();
    let wait = container.wait();
    let read = container.read(Stream::Stdout, 1);
    let crash = async { bench.hypervisor.crash(&bench.sandbox_id()) };
    let (wait, read, ()) = tokio::join!(wait, read, crash);
    assert!(matches!(wait.unwrap_err().cause, Cause::MachineGone(_)));
    assert!(matches!(read.unwrap_err().cause, Cause::MachineGone(_)));
    assert!(sandbox.machine_exited().await.is_some());
    assert_eq!(container.status().unwrap().state, State::Stopped);
    assert!(container.stop().await.unwrap().is_empty(), "nothing of it is left");
    container.delete().await.unwrap();
    sandbox.stop().await.unwrap();
    bench.assert_no_sandbox("after the end");
}

#[tokio::test]
async fn an_abandoned_sandbox_ends_by_itself() {
    let bench = bench();
    let sandbox = bench.sandbox().await.unwrap();
    let container = bench.container(&sandbox, "web").await.unwrap();
    drop(sandbox);
    assert_eq!(bench.disks().len(), 2, "the container's handle holds it");
    drop(container);
    while bench.spec.machine.runtime_dir.as_path().exists() {
        tokio::task::yield_now().await;
    }
    bench.assert_no_sandbox("when nobody has a handle");
}

#[tokio::test]
async fn a_sandbox_whose_directory_exists_is_refused_and_touches_nothing() {
    let bench = bench();
    let dir = bench.spec.machine.runtime_dir.as_path();
    std::fs::create_dir(dir).unwrap();
    std::fs::write(dir.join("other"), "theirs").unwrap();
    let refused = bench.sandbox().await.unwrap_err();
    assert!(matches!(refused.cause, Cause::Host(_)), "{refused:?}");
    assert!(dir.join("other").exists());
    assert!(bench.agent.calls().iter().all(|(call, _)| *call != Call::CreateSandbox));
}
