//! The obligations of [`Containers`](crate::Containers).

use std::time::Duration;

use super::fixture::container_id;
use super::{Fixture, Workload};
use crate::{Agent, AgentError, ExitStatus, ProcessRef};

/// A container's process does nothing before the start, and runs after it.
///
/// # Panics
/// When the obligation is not met.
pub async fn nothing_runs_before_the_start(agent: &impl Agent, fixture: &impl Fixture) {
    let id = container_id("before-start");
    let init = ProcessRef::init(&id);
    let request = fixture.container(&id, Workload::Prints);
    agent.create_container(&request, fixture.deadline()).await.expect("the container is created");
    let early = tokio::time::timeout(Duration::from_millis(200), agent.read_stdout(&init, 100)).await;
    assert!(early.is_err(), "output before the start: {early:?}");
    agent.start_container(&id, fixture.deadline()).await.expect("the container starts");
    assert_eq!(agent.wait(&init).await.expect("the process ends"), ExitStatus(7));
    agent.remove_container(&id, fixture.deadline()).await.expect("the container is removed");
}

/// A command that is not in the container is told as such at the create or the start, and nothing of
/// the container is left once it is removed.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_missing_command_is_told_and_leaves_nothing(agent: &impl Agent, fixture: &impl Fixture) {
    let error = refused_command(agent, fixture, Workload::Missing).await;
    assert!(matches!(error, AgentError::ExecutableNotFound { .. }), "{error:?}");
}

/// A command that exists and cannot be executed is told as such at the create or the start, and
/// nothing of the container is left once it is removed.
///
/// # Panics
/// When the obligation is not met.
pub async fn what_is_no_program_is_told_and_leaves_nothing(agent: &impl Agent, fixture: &impl Fixture) {
    let error = refused_command(agent, fixture, Workload::NotExecutable).await;
    assert!(matches!(error, AgentError::NotExecutable { .. }), "{error:?}");
}

async fn refused_command(agent: &impl Agent, fixture: &impl Fixture, workload: Workload) -> AgentError {
    let id = container_id("bad-command");
    let created = agent.create_container(&fixture.container(&id, workload), fixture.deadline()).await;
    let error = match created {
        Err(error) => error,
        Ok(()) => {
            let started = agent.start_container(&id, fixture.deadline()).await;
            agent.remove_container(&id, fixture.deadline()).await.expect("the container is removed");
            started.expect_err("the command cannot be started")
        }
    };
    let gone = agent.remove_container(&id, fixture.deadline()).await;
    assert!(matches!(gone, Err(AgentError::NoSuchContainer { .. })), "what is left of it: {gone:?}");
    runs(agent, fixture, "bad-command").await;
    error
}

/// Creating a container of an id that is taken fails, and the container of that id lives on.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_second_create_leaves_the_first_alone(agent: &impl Agent, fixture: &impl Fixture) {
    let id = container_id("twice");
    let request = fixture.container(&id, Workload::Copies);
    agent.create_container(&request, fixture.deadline()).await.expect("the container is created");
    agent.start_container(&id, fixture.deadline()).await.expect("the container starts");
    let second = agent.create_container(&request, fixture.deadline()).await;
    assert!(matches!(second, Err(AgentError::ContainerExists { .. })), "{second:?}");
    let init = ProcessRef::init(&id);
    assert_eq!(agent.write_stdin(&init, b"x").await.expect("the process lives"), 1);
    assert_eq!(agent.read_stdout(&init, 10).await.expect("the process answers"), b"x");
    agent.remove_container(&id, fixture.deadline()).await.expect("the container is removed");
}

/// Starting and removing an unknown container fail as such.
///
/// # Panics
/// When the obligation is not met.
pub async fn an_unknown_container_is_told(agent: &impl Agent, fixture: &impl Fixture) {
    let id = container_id("nobody");
    let started = agent.start_container(&id, fixture.deadline()).await;
    assert!(matches!(started, Err(AgentError::NoSuchContainer { .. })), "{started:?}");
    let removed = agent.remove_container(&id, fixture.deadline()).await;
    assert!(matches!(removed, Err(AgentError::NoSuchContainer { .. })), "{removed:?}");
}

/// A second start fails, and the container lives on.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_container_starts_once(agent: &impl Agent, fixture: &impl Fixture) {
    let id = container_id("once");
    let request = fixture.container(&id, Workload::Copies);
    agent.create_container(&request, fixture.deadline()).await.expect("the container is created");
    agent.start_container(&id, fixture.deadline()).await.expect("the container starts");
    agent.start_container(&id, fixture.deadline()).await.expect_err("it was started before");
    let init = ProcessRef::init(&id);
    agent.close_stdin(&init, fixture.deadline()).await.expect("the process lives");
    assert_eq!(agent.wait(&init).await.expect("the process ends"), ExitStatus(0));
    agent.remove_container(&id, fixture.deadline()).await.expect("the container is removed");
}

/// Removing a running container kills it; whoever waits for it is told.
///
/// # Panics
/// When the obligation is not met.
pub async fn removal_ends_a_running_container(agent: &impl Agent, fixture: &impl Fixture) {
    let id = container_id("running");
    let request = fixture.container(&id, Workload::Waits);
    agent.create_container(&request, fixture.deadline()).await.expect("the container is created");
    agent.start_container(&id, fixture.deadline()).await.expect("the container starts");
    let init = ProcessRef::init(&id);
    let mut waiting = std::pin::pin!(agent.wait(&init));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut waiting).await;
    assert!(early.is_err(), "it ended by itself: {early:?}");
    agent.remove_container(&id, fixture.deadline()).await.expect("the container is removed");
    let status = tokio::time::timeout(fixture.deadline().remaining(), waiting).await;
    assert_eq!(status.expect("the wait ends").expect("the status is told"), ExitStatus(137));
}

/// The id of a removed container is free.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_removed_container_can_be_created_again(agent: &impl Agent, fixture: &impl Fixture) {
    runs(agent, fixture, "again").await;
    runs(agent, fixture, "again").await;
}

async fn runs(agent: &impl Agent, fixture: &impl Fixture, id: &str) {
    let id = container_id(id);
    let request = fixture.container(&id, Workload::Prints);
    agent.create_container(&request, fixture.deadline()).await.expect("the container is created");
    agent.start_container(&id, fixture.deadline()).await.expect("the container starts");
    let status = agent.wait(&ProcessRef::init(&id)).await;
    assert_eq!(status.expect("the process ends"), ExitStatus(7));
    agent.remove_container(&id, fixture.deadline()).await.expect("the container is removed");
}
