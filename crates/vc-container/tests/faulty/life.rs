//! A life in which one call goes wrong, on whatever is behind the ports: what fails leaves nothing, tells its first
//! error, and takes no longer than it may.

use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxResources, Process};
use vc_agent::Signal;
use vc_container::{Container, OperationError, Sandbox, State, Timing};

use super::{Fault, Faults};

/// What a life is led on.
pub(crate) trait Stack {
    fn faults(&self) -> &Faults;

    fn timing(&self) -> Timing;

    /// How long the machine of the tests may keep anybody from running.
    fn noise(&self) -> Duration;

    async fn sandbox(&self) -> Result<Sandbox, OperationError>;

    async fn container(&self, sandbox: &Sandbox) -> Result<Container, OperationError>;

    /// A process that runs until it is killed.
    fn process(&self) -> Process;

    /// What is left in machine and guest of the container.
    async fn left_of_container(&self) -> Vec<String>;

    /// Asserts that nothing of the sandbox is left on the host.
    fn assert_no_sandbox(&self, when: &str);

    /// The time that passes, which may not be that of the clock on the wall.
    fn now(&self) -> Instant;
}

/// A whole life of a sandbox, in which the `n`-th call goes wrong; whether it came to that.
pub(crate) async fn life(stack: &impl Stack, n: u32, fault: Fault) -> bool {
    stack.faults().plan(n, fault);
    let when = &format!("{fault:?} at call {n}");
    let timing = stack.timing();
    let most = timing.launch + timing.boot + timing.request + timing.undo;
    let sandbox = match within(stack, when, most, stack.sandbox()).await {
        Ok(sandbox) => sandbox,
        Err(error) => {
            assert!(error.left.is_empty(), "{when}: {error:?}");
            stack.assert_no_sandbox(&format!("after a failed creation, {when}"));
            return true;
        }
    };
    container_lives(stack, &sandbox, when, &[]).await;
    end(stack, sandbox, when).await;
    stack.faults().met().is_some()
}

/// Stops a sandbox. What cannot be had at once can be had the second time.
pub(crate) async fn end(stack: &impl Stack, sandbox: Sandbox, when: &str) {
    let timing = stack.timing();
    let most = timing.undo / 2 + timing.undo;
    if within(stack, when, most, sandbox.stop()).await.is_err() {
        sandbox.stop().await.unwrap_or_else(|left| panic!("second stop, {when}: {left:?}"));
    }
    drop(sandbox);
    stack.assert_no_sandbox(&format!("at the end, {when}"));
}

/// A container's life with a fault in it; if that has kept it from its end, it is led once more without. `others`
/// are in the same sandbox.
pub(crate) async fn container_lives(stack: &impl Stack, sandbox: &Sandbox, when: &str, others: &[&str]) {
    let first = container_life(stack, sandbox, when).await;
    if first.is_ok() || is_over(stack, sandbox) {
        return;
    }
    let containers = sandbox.status().containers;
    if let Some(known) = containers.iter().find(|(id, _)| !others.contains(&id.as_str())) {
        panic!("a failed container is still {known:?}, {when}");
    }
    // What the guest does late is looked for and removed; the name is free again then.
    stack.faults().late_is_done().await;
    let began = stack.now();
    while !stack.left_of_container().await.is_empty() {
        assert!(stack.now() - began < stack.timing().ghost, "a ghost stays, {when}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let again = container_life(stack, sandbox, when).await;
    again.unwrap_or_else(|error| panic!("after {first:?}, {when}: {error:?}"));
}

/// A container's life. What fails once works when it is tried again.
async fn container_life(stack: &impl Stack, sandbox: &Sandbox, when: &str) -> Result<(), OperationError> {
    let timing = stack.timing();
    let created = within(stack, when, timing.create + timing.undo, stack.container(sandbox)).await;
    let container = match created {
        Ok(container) => container,
        Err(error) => {
            if error.left.is_empty() {
                assert_no_container(stack, &format!("after a failed creation, {when}")).await;
            }
            return Err(error);
        }
    };
    let start = within(stack, when, timing.request + timing.kill + timing.undo, container.start());
    if let Err(error) = start.await {
        if error.left.is_empty() {
            assert_no_container(stack, &format!("after a failed start, {when}")).await;
            container.delete().await.unwrap_or_else(|error| panic!("delete, {when}: {error:?}"));
        }
        return Err(error);
    }
    let used = use_it(stack, &container, when).await;
    if let Err(error) = &used
        && !is_over(stack, sandbox)
    {
        assert!(error.left.is_empty(), "{when}: {error:?}");
        // As it was before the step: one that did not go on is still frozen.
        let state = container.status().unwrap().state;
        assert!(matches!(state, State::Running | State::Paused), "{state}, {when}");
    }
    if !within(stack, when, timing.kill + timing.undo, container.stop()).await?.is_empty() {
        if stack.faults().is_disconnected() {
            // Nobody can ask the guest to let go; the end of the sandbox releases everything.
            return Ok(());
        }
        // What a stop could not release, the next one does.
        let left = container.stop().await?;
        assert!(left.is_empty(), "second stop, {when}: {left:?}");
    }
    assert_no_container(stack, &format!("after the stop, {when}")).await;
    within(stack, when, timing.undo, container.delete()).await?;
    used
}

/// What can be asked of a container that runs. What fails leaves nothing.
async fn use_it(stack: &impl Stack, container: &Container, when: &str) -> Result<(), OperationError> {
    let timing = stack.timing();
    let most = timing.request + timing.undo;
    let limits: LinuxResources = serde_json::from_str(r#"{"memory": {"limit": 67108864}}"#).unwrap();
    let job = within(stack, when, most, container.exec("job".parse().unwrap(), stack.process())).await?;
    within(stack, when, most, container.pause()).await?;
    assert_eq!(container.status().unwrap().state, State::Paused, "{when}");
    within(stack, when, most, container.resume()).await?;
    within(stack, when, most, container.update(limits)).await?;
    within(stack, when, timing.request, container.stats()).await?;
    within(stack, when, timing.request, job.signal(Signal::KILL)).await
}

/// Carries an operation out; it may take what docs/LIFECYCLE.md gives it, and a tenth more.
async fn within<T>(stack: &impl Stack, what: &str, most: Duration, operation: impl Future<Output = T>) -> T {
    let began = stack.now();
    let result = operation.await;
    let took = stack.now() - began;
    assert!(took <= most + most / 10 + stack.noise(), "{what} took {took:?} of {most:?}");
    result
}

async fn assert_no_container(stack: &impl Stack, when: &str) {
    let left = stack.left_of_container().await;
    assert!(left.is_empty(), "{when}: {left:?}");
}

/// Whether machine or connection are gone, so that nothing more can be tried.
fn is_over(stack: &impl Stack, sandbox: &Sandbox) -> bool {
    sandbox.status().machine_exit.is_some() || stack.faults().is_disconnected()
}
