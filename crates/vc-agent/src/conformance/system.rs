//! The obligations of [`System`](crate::System).

use std::time::{Duration, UNIX_EPOCH};

use vc_types::GuestPath;

use super::fixture::container_id;
use super::processes::{remove, running_as};
use super::streams::drain;
use super::{Fixture, Workload};
use crate::{Agent, AgentError, Online};

/// The clock shows what it was set to.
///
/// # Panics
/// When the obligation is not met.
pub async fn the_clock_can_be_set(agent: &impl Agent, fixture: &impl Fixture) {
    let time = 2_000_000_000;
    agent
        .set_time(UNIX_EPOCH + Duration::from_secs(time), fixture.deadline())
        .await
        .expect("the clock is set");
    let request = fixture.container(&container_id("clock"), Workload::PrintsTime);
    let init = running_as(agent, fixture, &request).await;
    let (stdout, _) = drain(agent, &init).await;
    let now: u64 = String::from_utf8_lossy(&stdout).trim().parse().expect("seconds");
    assert!((time..time + 600).contains(&now), "{now}");
    remove(agent, fixture, &init).await;
}

/// Entropy is taken; to send none is refused.
///
/// # Panics
/// When the obligation is not met.
pub async fn entropy_is_taken(agent: &impl Agent, fixture: &impl Fixture) {
    agent.reseed_random(&[0x5a; 512], fixture.deadline()).await.expect("entropy is taken");
    let none = agent.reseed_random(&[], fixture.deadline()).await;
    assert!(matches!(none, Err(AgentError::Unsendable { .. })), "{none:?}");
}

/// Taking what was plugged into use is no error when nothing was.
///
/// # Panics
/// When the obligation is not met.
pub async fn nothing_to_take_into_use_is_fine(agent: &impl Agent, fixture: &impl Fixture) {
    let nothing = Online { cpus: 0, memory: true, wait: false };
    agent.online(nothing, fixture.deadline()).await.expect("there is nothing to do");
}

/// Where memory is need not be told to a kernel that notices it by itself, and is refused then.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_memory_probe_needs_a_kernel_that_has_it(agent: &impl Agent, fixture: &impl Fixture) {
    let details = agent.details(fixture.deadline()).await.expect("the agent tells");
    let probed = agent.probe_memory(&[1 << 40], fixture.deadline()).await;
    let refused = matches!(probed, Err(AgentError::Refused { .. } | AgentError::Unimplemented { .. }));
    assert!(refused || details.memory_probe, "{probed:?}");
}

/// A swap file that is not there is refused.
///
/// # Panics
/// When the obligation is not met.
pub async fn swap_that_is_not_there_is_refused(agent: &impl Agent, fixture: &impl Fixture) {
    let path = GuestPath::new("/run/vc-no-such-swap").expect("a path");
    let added = agent.add_swap_file(&path, fixture.deadline()).await;
    assert!(matches!(added, Err(AgentError::Refused { .. })), "{added:?}");
}
