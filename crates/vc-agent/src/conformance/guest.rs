//! The obligations of [`Guest`](crate::Guest).

use super::Fixture;
use super::fixture::another;
use crate::{Agent, AgentError};

/// A health check is answered, before the sandbox is created as well.
///
/// # Panics
/// When the obligation is not met.
pub async fn it_answers(agent: &impl Agent, fixture: &impl Fixture) {
    agent.check(fixture.deadline()).await.expect("the agent answers");
}

/// The sandbox is created; a second one is refused.
///
/// # Panics
/// When the obligation is not met.
pub async fn the_sandbox_is_created_once(agent: &impl Agent, fixture: &impl Fixture) {
    let sandbox = fixture.sandbox();
    agent.create_sandbox(&sandbox, fixture.deadline()).await.expect("the sandbox is created");
    let second = agent.create_sandbox(&another(&sandbox), fixture.deadline()).await;
    assert!(matches!(second, Err(AgentError::Refused { .. })), "a second sandbox: {second:?}");
    agent.check(fixture.deadline()).await.expect("the agent answers on");
}

/// Destroying the sandbox is answered, or ends the connection because the guest is gone already.
///
/// # Panics
/// When the obligation is not met.
pub async fn destroying_the_sandbox_ends_it(agent: &impl Agent, fixture: &impl Fixture) {
    let destroyed = agent.destroy_sandbox(fixture.deadline()).await;
    assert!(matches!(destroyed, Ok(()) | Err(AgentError::Disconnected { .. })), "{destroyed:?}");
}
