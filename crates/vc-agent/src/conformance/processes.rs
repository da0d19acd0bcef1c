//! The obligations of [`Processes`](crate::Processes).

use std::time::Duration;

use super::fixture::container_id;
use super::streams::drain;
use super::{Fixture, Workload};
use crate::{Agent, AgentError, CreateContainer, ExitStatus, ProcessRef, Signal, SignalTarget};

/// Those who wait at the same time, and those who wait later, all get the exit status.
///
/// # Panics
/// When the obligation is not met.
pub async fn everyone_who_waits_gets_the_exit_status(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "waits", Workload::Copies).await;
    let close = agent.close_stdin(&init, fixture.deadline());
    let (first, second, closed) = tokio::join!(agent.wait(&init), agent.wait(&init), close);
    closed.expect("stdin is closed");
    for status in [first, second, agent.wait(&init).await] {
        assert_eq!(status.expect("the status is told"), ExitStatus(0));
    }
    remove(agent, fixture, &init).await;
}

/// A wait that was given up leaves the exit status for the next.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_dropped_wait_loses_nothing(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "dropped-wait", Workload::Waits).await;
    let early = tokio::time::timeout(Duration::from_millis(100), agent.wait(&init)).await;
    assert!(early.is_err(), "it ended by itself: {early:?}");
    kill(agent, fixture, &init).await.expect("the signal is sent");
    assert_eq!(agent.wait(&init).await.expect("the status is told"), ExitStatus(137));
    remove(agent, fixture, &init).await;
}

/// KILL ends a process with status 137. So does TERM, with 143 or 137: the init process of a pid
/// namespace that has no handler for TERM does not see it, and agents then send KILL.
///
/// # Panics
/// When the obligation is not met.
pub async fn kill_and_term_end_a_process(agent: &impl Agent, fixture: &impl Fixture) {
    let cases = [("killed", Signal::KILL, &[137][..]), ("terminated", Signal::TERM, &[143, 137][..])];
    for (id, signal, expected) in cases {
        let init = running(agent, fixture, id, Workload::Waits).await;
        let target = SignalTarget::Process(init.clone());
        agent.signal(&target, signal, fixture.deadline()).await.expect("the signal is sent");
        let status = agent.wait(&init).await.expect("the status is told");
        assert!(expected.contains(&status.0), "{signal:?}: {status:?}");
        remove(agent, fixture, &init).await;
    }
}

/// KILL to all processes ends the container.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_signal_to_all_ends_the_container(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "all", Workload::Waits).await;
    let all = SignalTarget::All(init.container.clone());
    agent.signal(&all, Signal::KILL, fixture.deadline()).await.expect("the signal is sent");
    assert_eq!(agent.wait(&init).await.expect("the status is told"), ExitStatus(137));
    remove(agent, fixture, &init).await;
}

/// A signal to a process that has ended does no harm. An agent may say that it is gone, or nothing.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_signal_after_the_end_does_no_harm(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "gone", Workload::Prints).await;
    drain(agent, &init).await;
    agent.wait(&init).await.expect("the status is told");
    let late = kill(agent, fixture, &init).await;
    assert!(matches!(late, Ok(()) | Err(AgentError::AlreadyGone)), "{late:?}");
    assert_eq!(agent.wait(&init).await.expect("the status stays"), ExitStatus(7));
    remove(agent, fixture, &init).await;
}

/// Waiting for, and signalling, what does not exist fails as such.
///
/// # Panics
/// When the obligation is not met.
pub async fn an_unknown_process_is_told(agent: &impl Agent, fixture: &impl Fixture) {
    let nobody = ProcessRef::init(&container_id("nobody"));
    let waited = agent.wait(&nobody).await;
    assert!(matches!(waited, Err(AgentError::NoSuchContainer { .. })), "{waited:?}");
    let signalled = kill(agent, fixture, &nobody).await;
    let expected = matches!(signalled, Err(AgentError::NoSuchContainer { .. } | AgentError::AlreadyGone));
    assert!(expected, "{signalled:?}");
    let init = running(agent, fixture, "known", Workload::Waits).await;
    let exec = ProcessRef { exec: Some("unknown".parse().expect("an id")), ..init.clone() };
    let waited = agent.wait(&exec).await;
    assert!(matches!(waited, Err(AgentError::NoSuchProcess { .. })), "{waited:?}");
    remove(agent, fixture, &init).await;
}

/// A container of that id that runs `workload`.
pub(super) async fn running(
    agent: &impl Agent,
    fixture: &impl Fixture,
    id: &str,
    workload: Workload,
) -> ProcessRef {
    running_as(agent, fixture, &fixture.container(&container_id(id), workload)).await
}

/// The container of `request`, running.
pub(super) async fn running_as(
    agent: &impl Agent,
    fixture: &impl Fixture,
    request: &CreateContainer,
) -> ProcessRef {
    agent.create_container(request, fixture.deadline()).await.expect("the container is created");
    agent.start_container(&request.id, fixture.deadline()).await.expect("the container starts");
    ProcessRef::init(&request.id)
}

pub(super) async fn remove(agent: &impl Agent, fixture: &impl Fixture, init: &ProcessRef) {
    let removed = agent.remove_container(&init.container, fixture.deadline()).await;
    removed.expect("the container is removed");
}

pub(super) async fn kill(
    agent: &impl Agent,
    fixture: &impl Fixture,
    process: &ProcessRef,
) -> Result<(), AgentError> {
    agent.signal(&SignalTarget::Process(process.clone()), Signal::KILL, fixture.deadline()).await
}
