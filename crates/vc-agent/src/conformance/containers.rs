//! The obligations of [`Containers`](crate::Containers).

use std::time::Duration;

use super::fixture::{container_id, limits};
use super::processes::{remove, running};
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

/// Whatever is asked of an unknown container fails as such.
///
/// # Panics
/// When the obligation is not met.
pub async fn an_unknown_container_is_told(agent: &impl Agent, fixture: &impl Fixture) {
    let id = container_id("nobody");
    let started = agent.start_container(&id, fixture.deadline()).await;
    assert!(matches!(started, Err(AgentError::NoSuchContainer { .. })), "{started:?}");
    let removed = agent.remove_container(&id, fixture.deadline()).await;
    assert!(matches!(removed, Err(AgentError::NoSuchContainer { .. })), "{removed:?}");
    let paused = agent.pause_container(&id, fixture.deadline()).await;
    assert!(matches!(paused, Err(AgentError::NoSuchContainer { .. })), "{paused:?}");
    let resumed = agent.resume_container(&id, fixture.deadline()).await;
    assert!(matches!(resumed, Err(AgentError::NoSuchContainer { .. })), "{resumed:?}");
    let updated = agent.update_container(&id, &limits(64 << 20, 50), fixture.deadline()).await;
    assert!(matches!(updated, Err(AgentError::NoSuchContainer { .. })), "{updated:?}");
    let stats = agent.container_stats(&id, fixture.deadline()).await;
    assert!(matches!(stats, Err(AgentError::NoSuchContainer { .. })), "{stats:?}");
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

/// A paused container does nothing; what came for it meanwhile is done once it is resumed. To pause
/// twice, or to resume what is not paused, is refused.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_paused_container_does_nothing(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "paused", Workload::Copies).await;
    let id = &init.container;
    let early = agent.resume_container(id, fixture.deadline()).await;
    assert!(matches!(early, Err(AgentError::Refused { .. })), "{early:?}");
    agent.pause_container(id, fixture.deadline()).await.expect("the container is paused");
    let second = agent.pause_container(id, fixture.deadline()).await;
    assert!(matches!(second, Err(AgentError::Refused { .. })), "{second:?}");
    assert_eq!(agent.write_stdin(&init, b"x").await.expect("the pipe takes it"), 1);
    let mut read = std::pin::pin!(agent.read_stdout(&init, 10));
    let frozen = tokio::time::timeout(Duration::from_millis(300), &mut read).await;
    assert!(frozen.is_err(), "it is paused, and still: {frozen:?}");
    agent.resume_container(id, fixture.deadline()).await.expect("the container is resumed");
    assert_eq!(read.await.expect("it goes on"), b"x");
    remove(agent, fixture, &init).await;
}

/// A paused container can be removed.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_paused_container_can_be_removed(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "removed-paused", Workload::Waits).await;
    agent.pause_container(&init.container, fixture.deadline()).await.expect("the container is paused");
    remove(agent, fixture, &init).await;
}

/// Limits that are changed apply, as the container's figures show.
///
/// # Panics
/// When the obligation is not met.
pub async fn limits_can_be_changed(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "limits", Workload::Waits).await;
    for (memory, pids) in [(64 << 20, 50), (48 << 20, 20)] {
        let limits = limits(memory, pids);
        agent
            .update_container(&init.container, &limits, fixture.deadline())
            .await
            .expect("the limits change");
        let stats = agent.container_stats(&init.container, fixture.deadline()).await.expect("it has figures");
        let told = (stats.memory.usage.limit, stats.pids.limit);
        assert_eq!((i64::try_from(told.0), i64::try_from(told.1)), (Ok(memory), Ok(pids)));
    }
    remove(agent, fixture, &init).await;
}

/// A container's figures have its processes, its memory, its time, and the traffic of the guest (L-40:
/// the network was dropped on the way).
///
/// # Panics
/// When the obligation is not met.
pub async fn figures_tell_what_is_used(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "figures", Workload::Copies).await;
    agent.write_stdin(&init, b"x").await.expect("the process lives");
    assert_eq!(agent.read_stdout(&init, 1).await.expect("the process answers"), b"x");
    let stats = agent.container_stats(&init.container, fixture.deadline()).await.expect("it has figures");
    assert_eq!(stats.pids.current, 1, "{stats:?}");
    assert!(stats.memory.usage.current > 0, "{stats:?}");
    assert!(stats.cpu.total > 0, "{stats:?}");
    assert!(stats.network.iter().any(|interface| interface.name == "lo"), "{stats:?}");
    remove(agent, fixture, &init).await;
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
