//! The obligations of [`Guest`](crate::Guest).

use vc_types::GuestPath;

use super::fixture::{another, bind, container_id, limit, limits};
use super::processes::{remove, running_as};
use super::streams::drain;
use super::{Fixture, Workload};
use crate::{Agent, AgentError, Diagnostic, ExitStatus, StorageDriver};

/// Where agents keep the sandbox's `resolv.conf`, for containers to bind.
const RESOLV_CONF: &str = "/run/kata-containers/sandbox/resolv.conf";

/// A health check is answered, before the sandbox is created as well.
///
/// # Panics
/// When the obligation is not met.
pub async fn it_answers(agent: &impl Agent, fixture: &impl Fixture) {
    agent.check(fixture.deadline()).await.expect("the agent answers");
}

/// The agent tells its version, and the storages that it can mount.
///
/// # Panics
/// When the obligation is not met.
pub async fn it_tells_what_it_can(agent: &impl Agent, fixture: &impl Fixture) {
    let details = agent.details(fixture.deadline()).await.expect("the agent tells");
    assert!(!details.version.is_empty(), "{details:?}");
    for driver in [StorageDriver::Block, StorageDriver::Overlay] {
        assert!(details.can_mount(driver), "{driver:?} is missing in {details:?}");
    }
}

/// The sandbox is created; a second one is refused.
///
/// # Panics
/// When the obligation is not met.
pub async fn the_sandbox_is_created_once(agent: &impl Agent, fixture: &impl Fixture) {
    let mut sandbox = fixture.sandbox();
    sandbox.dns = vec!["nameserver 192.0.2.53".to_owned(), "search test.example".to_owned()];
    agent.create_sandbox(&sandbox, fixture.deadline()).await.expect("the sandbox is created");
    let second = agent.create_sandbox(&another(&sandbox), fixture.deadline()).await;
    assert!(matches!(second, Err(AgentError::Refused { .. })), "a second sandbox: {second:?}");
    agent.check(fixture.deadline()).await.expect("the agent answers on");
}

/// The name servers of the sandbox stand in `/run/kata-containers/sandbox/resolv.conf`, which containers
/// bind to their `/etc/resolv.conf`.
///
/// # Panics
/// When the obligation is not met.
pub async fn containers_can_bind_the_name_servers(agent: &impl Agent, fixture: &impl Fixture) {
    let mut request = fixture.container(&container_id("dns"), Workload::PrintsFile);
    bind(&mut request, &GuestPath::new(RESOLV_CONF).expect("a path"));
    let init = running_as(agent, fixture, &request).await;
    let (stdout, _) = drain(agent, &init).await;
    let text = String::from_utf8_lossy(&stdout);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines, ["nameserver 192.0.2.53", "search test.example"]);
    remove(agent, fixture, &init).await;
}

/// Metrics come in the text format of Prometheus.
///
/// # Panics
/// When the obligation is not met.
pub async fn metrics_are_prometheus_text(agent: &impl Agent, fixture: &impl Fixture) {
    let metrics = agent.metrics(fixture.deadline()).await.expect("the agent tells");
    let mut samples = 0;
    for line in metrics.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a sample is a name and a value");
        assert!(name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        samples += 1;
    }
    assert!(samples > 0, "no samples in {metrics:?}");
}

/// What an unknown container left is told as such.
///
/// # Panics
/// When the obligation is not met.
pub async fn diagnostics_of_an_unknown_container_are_refused(agent: &impl Agent, fixture: &impl Fixture) {
    let nobody = container_id("nobody");
    let answer = agent.diagnostic(&nobody, Diagnostic::TerminationLog, fixture.deadline()).await;
    assert!(matches!(answer, Err(AgentError::NoSuchContainer { .. })), "{answer:?}");
}

/// A container that takes more memory than it may is killed, an event names it, and the agent answers
/// on. Who stopped waiting for the event before has lost nothing.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_kill_for_want_of_memory_is_told(agent: &impl Agent, fixture: &impl Fixture) {
    let early = tokio::time::timeout(std::time::Duration::from_millis(100), agent.oom_event()).await;
    assert!(early.is_err(), "nobody took memory, and still: {early:?}");
    let mut request = fixture.container(&container_id("hog"), Workload::Hogs);
    limit(&mut request, limits(32 << 20, 100));
    let init = running_as(agent, fixture, &request).await;
    let event = tokio::time::timeout(fixture.deadline().remaining(), agent.oom_event()).await;
    assert_eq!(event.expect("an event comes").expect("it names a container"), init.container);
    assert_eq!(agent.wait(&init).await.expect("the process ends"), ExitStatus(137));
    agent.check(fixture.deadline()).await.expect("the agent answers on");
    remove(agent, fixture, &init).await;
}

/// Destroying the sandbox is answered, or ends the connection because the guest is gone already.
///
/// # Panics
/// When the obligation is not met.
pub async fn destroying_the_sandbox_ends_it(agent: &impl Agent, fixture: &impl Fixture) {
    let destroyed = agent.destroy_sandbox(fixture.deadline()).await;
    assert!(matches!(destroyed, Ok(()) | Err(AgentError::Disconnected { .. })), "{destroyed:?}");
}
