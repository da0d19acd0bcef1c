//! Every call of a life goes wrong once, in every way it can.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;
use vc_agent::fake::{FakeAgent, Fault as AgentFault};
use vc_container::{OperationError, Sandbox};
use vc_hypervisor::fake::{FakeHypervisor, Fault as MachineFault};

use crate::bench::Bench;

/// A life has fewer calls than this; a loop that gets here has missed its end.
const MANY: u32 = 100;

/// No operation may take longer than its steps' deadlines together, with a tenth for good measure.
const LONGEST: Duration = Duration::from_secs(330);

fn nth(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

/// A container's life in a sandbox that lives. What fails once works when it is tried again.
async fn container_life(bench: &Bench, sandbox: &Sandbox, when: &str) -> Result<(), OperationError> {
    let container = match bench.container(sandbox, "web").await {
        Ok(container) => container,
        Err(error) => {
            if error.left.is_empty() {
                bench.assert_no_container(&format!("after a failed creation, {when}"));
            }
            return Err(error);
        }
    };
    if let Err(error) = container.start().await {
        if error.left.is_empty() {
            bench.assert_no_container(&format!("after a failed start, {when}"));
            container.delete().await.unwrap_or_else(|error| panic!("delete, {when}: {error:?}"));
        }
        return Err(error);
    }
    if !container.stop().await?.is_empty() {
        if bench.agent.is_disconnected() {
            // Nobody can ask the guest to let go; the end of the sandbox releases everything.
            return Ok(());
        }
        // What a stop could not release, the next one does.
        assert!(container.stop().await?.is_empty(), "second stop, {when}");
    }
    bench.assert_no_container(&format!("after the stop, {when}"));
    container.delete().await
}

/// A life with one fault in it.
async fn life(bench: &Bench, when: &str) {
    let began = Instant::now();
    let sandbox = match bench.sandbox().await {
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
    if sandbox.stop().await.is_err() {
        sandbox.stop().await.unwrap_or_else(|left| panic!("second stop, {when}: {left:?}"));
    }
    drop(sandbox);
    bench.assert_no_sandbox(&format!("at the end, {when}"));
    assert!(began.elapsed() < LONGEST, "{:?}, {when}", began.elapsed());
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
