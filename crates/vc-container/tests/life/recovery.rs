//! Another owner takes a sandbox over, at any moment of its life.

use std::num::NonZeroU32;
use std::time::Duration;

use vc_agent::fake::{FakeAgent, FakeConnector, Fault};
use vc_agent::{ExitStatus, ProcessRef, Signal};
use vc_container::{CleanedUp, Lost, Recovered, Sandbox, State, StoreError};
use vc_hypervisor::fake::FakeHypervisor;
use vc_types::HostPath;

use crate::bench::{Bench, id, process};

fn kept(agent: FakeAgent) -> Bench {
    let mut bench = Bench::new(FakeHypervisor::default(), agent);
    bench.spec.state_dir = Some(HostPath::new(bench.path().join("state")).unwrap());
    bench
}

async fn recover(bench: &Bench) -> Result<Recovered, StoreError> {
    let dir = bench.spec.state_dir.clone().unwrap();
    let connector = FakeConnector::new(&bench.agent);
    Sandbox::recover(&bench.hypervisor, &connector, &dir, bench.spec.timing).await
}

async fn resumed(bench: &Bench) -> Sandbox {
    match recover(bench).await.unwrap() {
        Recovered::Resumed(sandbox) => sandbox,
        Recovered::CleanedUp(why) => panic!("{why:?}"),
    }
}

#[track_caller]
fn assert_nothing(bench: &Bench, when: &str) {
    bench.assert_no_sandbox(when);
    assert!(!bench.spec.state_dir.as_ref().unwrap().as_path().exists(), "state {when}");
}

fn executed(exec: &str) -> ProcessRef {
    ProcessRef { container: id("web"), exec: Some(exec.parse().unwrap()) }
}

#[tokio::test]
async fn a_sandbox_goes_on_with_another_owner_and_no_exit_status_is_lost() {
    let bench = kept(FakeAgent::new());
    let sandbox = bench.sandbox().await.unwrap();
    let web = bench.container(&sandbox, "web").await.unwrap();
    web.start().await.unwrap();
    bench.container(&sandbox, "ready").await.unwrap();
    let frozen = bench.container(&sandbox, "frozen").await.unwrap();
    frozen.start().await.unwrap();
    frozen.pause().await.unwrap();
    let done = bench.container(&sandbox, "done").await.unwrap();
    done.start().await.unwrap();
    bench.agent.end(&ProcessRef::init(&id("done")), ExitStatus(4));
    done.wait().await.unwrap();
    for exec in ["early", "late"] {
        web.exec(exec.parse().unwrap(), process("job")).await.unwrap();
    }
    let owned = recover(&bench).await.unwrap_err();
    assert!(matches!(owned, StoreError::Owned(_)), "{owned:?}");
    sandbox.leave().await;
    // Meanwhile, with nobody there:
    bench.agent.end(&executed("early"), ExitStatus(5));
    let disks = bench.disks();

    let sandbox = resumed(&bench).await;
    let states: Vec<_> = sandbox.status().containers.values().map(|known| known.state).collect();
    assert_eq!(states, [State::Stopped, State::Paused, State::Ready, State::Running], "by name");
    assert_eq!(bench.disks(), disks);
    let web = sandbox.container(&id("web")).unwrap();
    let early = web.process("early".parse().unwrap()).await.unwrap();
    assert_eq!(early.wait().await.unwrap(), ExitStatus(5));
    let late = web.process("late".parse().unwrap()).await.unwrap();
    late.signal(Signal::TERM).await.unwrap();
    assert_eq!(late.wait().await.unwrap(), ExitStatus(143));
    let done = sandbox.container(&id("done")).unwrap();
    assert_eq!(done.wait().await.unwrap(), ExitStatus(4), "from the record");
    let ready = sandbox.container(&id("ready")).unwrap();
    ready.start().await.unwrap();
    sandbox.container(&id("frozen")).unwrap().resume().await.unwrap();
    for name in ["done", "frozen", "ready", "web"] {
        let container = sandbox.container(&id(name)).unwrap();
        assert!(container.stop().await.unwrap().is_empty(), "{name}");
        container.delete().await.unwrap();
    }
    bench.assert_no_container("after all are gone");
    bench.container(&sandbox, "next").await.unwrap();
    sandbox.stop().await.unwrap();
    assert_nothing(&bench, "at the end");
}

#[tokio::test]
async fn without_a_machine_everything_is_cleaned_up_and_the_known_ends_are_told() {
    let bench = kept(FakeAgent::new());
    let sandbox = bench.sandbox().await.unwrap();
    for name in ["done", "running"] {
        bench.container(&sandbox, name).await.unwrap().start().await.unwrap();
    }
    bench.agent.end(&ProcessRef::init(&id("done")), ExitStatus(4));
    sandbox.container(&id("done")).unwrap().wait().await.unwrap();
    sandbox.leave().await;
    bench.hypervisor.crash(&bench.sandbox_id());
    let Recovered::CleanedUp(CleanedUp { reason: Lost::Machine, containers, left }) =
        recover(&bench).await.unwrap()
    else {
        panic!("the machine is gone")
    };
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(containers[&id("done")], Some(ExitStatus(4)));
    assert_eq!(containers[&id("running")], None);
    assert_nothing(&bench, "after the recovery");
    assert!(matches!(recover(&bench).await, Err(StoreError::NoRecord(_))));
}

/// A sandbox with a container, and nobody who owns it.
async fn left_alone(bench: &Bench) {
    let sandbox = bench.sandbox().await.unwrap();
    bench.container(&sandbox, "web").await.unwrap();
    sandbox.leave().await;
}

/// A recovery that nobody waits for, and another one behind it.
async fn assert_found_again(bench: &Bench, when: &str) {
    let given_up = tokio::time::timeout(Duration::from_millis(1), recover(bench)).await;
    assert!(given_up.is_err(), "it hangs {when}");
    assert_eq!(bench.hypervisor.machines().len(), 1, "the machine runs on {when}");
    resumed(bench).await.stop().await.unwrap();
    assert_nothing(bench, when);
}

#[tokio::test(start_paused = true)]
async fn a_recovery_that_is_given_up_leaves_the_machine_to_the_next() {
    let bench = kept(FakeAgent::new());
    left_alone(&bench).await;
    let before = bench.hypervisor.calls();
    let sandbox = resumed(&bench).await;
    let calls = before + 1..=bench.hypervisor.calls();
    sandbox.stop().await.unwrap();
    assert!(calls.clone().count() > 1, "{calls:?}");
    for call in calls {
        let mut bench = kept(FakeAgent::new());
        bench.hypervisor =
            FakeHypervisor::with_fault(NonZeroU32::new(call).unwrap(), vc_hypervisor::fake::Fault::Hang);
        left_alone(&bench).await;
        assert_found_again(&bench, &format!("at call {call}")).await;
    }
    let bench = kept(FakeAgent::new());
    left_alone(&bench).await;
    bench.agent.fail_next(Fault::Hang);
    assert_found_again(&bench, "when the guest does not answer").await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_answer_is_ended() {
    let bench = kept(FakeAgent::new());
    let sandbox = bench.sandbox().await.unwrap();
    bench.container(&sandbox, "web").await.unwrap();
    sandbox.leave().await;
    bench.agent.disconnect();
    let recovered = recover(&bench).await.unwrap();
    assert!(
        matches!(&recovered, Recovered::CleanedUp(up) if matches!(up.reason, Lost::Guest(_))),
        "{recovered:?}"
    );
    assert_nothing(&bench, "after the recovery");
}

/// L-41: a record that cannot be written cost the old one, and with it the sandbox.
#[tokio::test]
async fn l35_l36_l41_what_cannot_be_written_down_does_not_happen_and_costs_nothing() {
    let bench = kept(FakeAgent::new());
    let sandbox = bench.sandbox().await.unwrap();
    let web = bench.container(&sandbox, "web").await.unwrap();
    let state = bench.spec.state_dir.clone().unwrap();
    let record = std::fs::read(state.as_path().join("record.json")).unwrap();
    // A directory in its place cannot be opened for writing, not even by root.
    std::fs::create_dir(state.as_path().join("record.json.new")).unwrap();
    let refused = bench.container(&sandbox, "other").await.unwrap_err();
    assert!(matches!(refused.cause, vc_container::Cause::Store(_)), "{refused:?}");
    assert_eq!(bench.agent.left().containers, [id("web")]);
    assert_eq!(std::fs::read(state.as_path().join("record.json")).unwrap(), record);
    let refused = web.start().await.unwrap_err();
    assert!(matches!(refused.cause, vc_container::Cause::Store(_)), "{refused:?}");
    assert_eq!(web.status().unwrap().state, State::Stopped, "a start that failed is the end");
    std::fs::remove_dir(state.as_path().join("record.json.new")).unwrap();
    web.delete().await.unwrap();
    sandbox.stop().await.unwrap();
    assert_nothing(&bench, "at the end");
}

#[tokio::test]
async fn a_record_of_another_version_is_refused_with_its_number_and_kept() {
    let bench = kept(FakeAgent::new());
    let sandbox = bench.sandbox().await.unwrap();
    sandbox.leave().await;
    let path = bench.spec.state_dir.as_ref().unwrap().as_path().join("record.json");
    let text = std::fs::read_to_string(&path).unwrap();
    for (bad, says) in
        [(text.replace("\"version\": 5", "\"version\": 7"), "version 7"), (text[..99].to_owned(), "damaged")]
    {
        std::fs::write(&path, &bad).unwrap();
        let refused = recover(&bench).await.unwrap_err();
        let source = std::error::Error::source(&refused).unwrap().to_string();
        assert!(source.contains(says), "{source}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
    }
    std::fs::write(&path, text).unwrap();
    resumed(&bench).await.stop().await.unwrap();
    assert_nothing(&bench, "at the end");
}

/// A life, during which the owner goes while it waits for the `n`-th call of the agent.
async fn interrupted(n: u32, fault: Fault) -> bool {
    let when = format!("when the owner goes at the agent's call {n}, {fault:?}");
    let bench = kept(FakeAgent::with_fault(NonZeroU32::new(n).unwrap(), fault));
    let Ok(sandbox) = bench.sandbox().await else {
        assert_nothing(&bench, &when);
        return true;
    };
    let life = async {
        let web = bench.container(&sandbox, "web").await?;
        web.start().await?;
        let job = web.exec("job".parse().unwrap(), process("job")).await?;
        web.pause().await?;
        web.resume().await?;
        job.signal(Signal::TERM).await?;
        web.stop().await?;
        web.delete().await
    };
    // Before the deadline of the call that hangs.
    drop(tokio::time::timeout(Duration::from_secs(5), life).await);
    let met = bench.agent.has_failed();
    bench.agent.heal();
    sandbox.leave().await;
    drop(sandbox);
    let sandbox = resumed(&bench).await;
    for name in sandbox.status().containers.into_keys() {
        let container = sandbox.container(&name).unwrap();
        assert!(container.stop().await.unwrap().is_empty(), "{when}");
        container.delete().await.unwrap_or_else(|error| panic!("{when}: {error:?}"));
    }
    bench.assert_no_container(&when);
    bench.container(&sandbox, "web").await.unwrap_or_else(|error| panic!("{when}: {error:?}"));
    sandbox.stop().await.unwrap_or_else(|left| panic!("{when}: {left:?}"));
    assert_nothing(&bench, &when);
    met
}

#[tokio::test(start_paused = true)]
async fn an_owner_may_go_at_every_call() {
    for fault in [Fault::Hang, Fault::AnswerLate] {
        let mut met = 0;
        for n in 1..100 {
            if !interrupted(n, fault).await {
                break;
            }
            met = n;
        }
        assert!((10..90).contains(&met), "{fault:?} came {met} times");
    }
}
