//! Every call of a life goes wrong once, in every way it can.

use std::num::NonZeroU32;
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use tokio::time::Instant;
use vc_agent::Signal;
use vc_agent::fake::{FakeAgent, Fault as AgentFault};
use vc_container::{Container, OperationError, Sandbox, State};
use vc_hypervisor::fake::{FakeHypervisor, Fault as MachineFault};

use crate::bench::{Bench, process};

/// A life has fewer calls than this; a loop that gets here has missed its end.
const MANY: u32 = 100;

fn nth(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

/// Carries an operation out; it may take what docs/LIFECYCLE.md gives it, and a tenth more.
async fn within<T>(what: &str, most: Duration, operation: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let result = operation.await;
    assert!(began.elapsed() <= most + most / 10, "{what} took {:?} of {most:?}", began.elapsed());
    result
}

/// What can be asked of a container that runs. What fails leaves nothing.
async fn use_it(bench: &Bench, container: &Container, when: &str) -> Result<(), OperationError> {
    let timing = bench.spec.timing;
    let most = timing.request + timing.undo;
    let limits: LinuxResources = serde_json::from_str(r#"{"memory": {"limit": 67108864}}"#).unwrap();
    let job = within(when, most, container.exec("job".parse().unwrap(), process("job"))).await?;
    within(when, most, container.pause()).await?;
    assert_eq!(container.status().unwrap().state, State::Paused, "{when}");
    within(when, most, container.resume()).await?;
    within(when, most, container.update(limits)).await?;
    within(when, timing.request, container.stats()).await?;
    within(when, timing.request, job.signal(Signal::KILL)).await
}

/// A container's life in a sandbox that lives. What fails once works when it is tried again.
async fn container_life(bench: &Bench, sandbox: &Sandbox, when: &str) -> Result<(), OperationError> {
    let timing = bench.spec.timing;
    let created = within(when, timing.create + timing.undo, bench.container(sandbox, "web")).await;
    let container = match created {
        Ok(container) => container,
        Err(error) => {
            if error.left.is_empty() {
                bench.assert_no_container(&format!("after a failed creation, {when}"));
            }
            return Err(error);
        }
    };
    let start = within(when, timing.request + timing.kill + timing.undo, container.start());
    if let Err(error) = start.await {
        if error.left.is_empty() {
            bench.assert_no_container(&format!("after a failed start, {when}"));
            container.delete().await.unwrap_or_else(|error| panic!("delete, {when}: {error:?}"));
        }
        return Err(error);
    }
    let used = use_it(bench, &container, when).await;
    if let Err(error) = &used
        && !is_over(sandbox, bench)
    {
        assert!(error.left.is_empty(), "{when}: {error:?}");
        // As it was before the step: one that did not go on is still frozen.
        let state = container.status().unwrap().state;
        assert!(matches!(state, State::Running | State::Paused), "{state}, {when}");
    }
    if !within(when, timing.kill + timing.undo, container.stop()).await?.is_empty() {
        if bench.agent.is_disconnected() {
            // Nobody can ask the guest to let go; the end of the sandbox releases everything.
            return Ok(());
        }
        // What a stop could not release, the next one does.
        assert!(container.stop().await?.is_empty(), "second stop, {when}");
    }
    bench.assert_no_container(&format!("after the stop, {when}"));
    within(when, timing.undo, container.delete()).await?;
    used
}

/// A life with one fault in it.
async fn life(bench: &Bench, when: &str) {
    let timing = bench.spec.timing;
    let most = timing.launch + timing.boot + timing.request + timing.undo;
    let sandbox = match within(when, most, bench.sandbox()).await {
        Ok(sandbox) => sandbox,
        Err(error) => {
            assert!(error.left.is_empty(), "{when}: {error:?}");
            return bench.assert_no_sandbox(&format!("after a failed creation, {when}"));
        }
    };
    if container_life(bench, &sandbox, when).await.is_err() && !is_over(&sandbox, bench) {
        // The fault has passed: the same name and the same disks must be free again.
        if let Some(status) = sandbox.status().containers.values().next() {
            panic!("a failed container is still known as {status:?}, {when}");
        }
        container_life(bench, &sandbox, when).await.unwrap_or_else(|error| panic!("{when}: {error:?}"));
    }
    let most = timing.undo / 2 + timing.power_off + timing.undo;
    if within(when, most, sandbox.stop()).await.is_err() {
        sandbox.stop().await.unwrap_or_else(|left| panic!("second stop, {when}: {left:?}"));
    }
    drop(sandbox);
    bench.assert_no_sandbox(&format!("at the end, {when}"));
}

/// Whether machine or connection are gone, so that nothing more can be tried.
fn is_over(sandbox: &Sandbox, bench: &Bench) -> bool {
    sandbox.status().machine_exit.is_some() || bench.agent.is_disconnected()
}

#[tokio::test(start_paused = true)]
async fn every_call_of_the_agent_may_fail() {
    for fault in [AgentFault::Refuse, AgentFault::Hang, AgentFault::AnswerLate, AgentFault::Disconnect] {
        let mut met = 0;
        for n in 1..MANY {
            let agent = FakeAgent::with_fault(nth(n), fault);
            let bench = Bench::new(FakeHypervisor::default(), agent);
            life(&bench, &format!("{fault:?} at the agent's call {n}")).await;
            if !bench.agent.has_failed() {
                break;
            }
            met = n;
        }
        assert!((7..MANY - 1).contains(&met), "{fault:?} came {met} times");
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_of_the_hypervisor_may_fail() {
    for fault in [MachineFault::Fail, MachineFault::Hang, MachineFault::Die] {
        let mut met = 0;
        for n in 1..MANY {
            let hypervisor = FakeHypervisor::with_fault(nth(n), fault);
            let bench = Bench::new(hypervisor, FakeAgent::new());
            life(&bench, &format!("{fault:?} at the hypervisor's call {n}")).await;
            if bench.hypervisor.calls() < n {
                break;
            }
            met = n;
        }
        assert!((5..MANY - 1).contains(&met), "{fault:?} came {met} times");
    }
}
