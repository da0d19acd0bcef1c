//! The obligations of [`Processes::exec`](crate::Processes::exec).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use super::fixture::{container_id, exec};
use super::processes::{kill, remove, running};
use super::streams::{drain, write_all};
use super::{Fixture, Workload};
use crate::{Agent, AgentError, ExitStatus, ProcessRef, Signal, SignalTarget, TerminalSize};

/// How many processes are started at once.
const MANY: usize = 20;

/// Another process runs in a container beside the first, with streams and an exit status of its own.
///
/// # Panics
/// When the obligation is not met.
pub async fn another_process_runs_beside_the_first(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "beside", Workload::Waits).await;
    let prints = started(agent, fixture, &init, "prints", Workload::Prints).await;
    assert_eq!(drain(agent, &prints).await, (b"out".to_vec(), b"err".to_vec()));
    let (first, second) = tokio::join!(agent.wait(&prints), agent.wait(&prints));
    assert_eq!((first.expect("it ends"), second.expect("all are told")), (ExitStatus(7), ExitStatus(7)));
    let copies = started(agent, fixture, &init, "copies", Workload::Copies).await;
    write_all(agent, &copies, b"through").await;
    agent.close_stdin(&copies, fixture.deadline()).await.expect("stdin is closed");
    assert_eq!(drain(agent, &copies).await.0, b"through");
    assert_eq!(agent.wait(&copies).await.expect("it ends"), ExitStatus(0));
    alive(agent, &init).await;
    remove(agent, fixture, &init).await;
}

/// A command that is not there, or is no program, is told as such; the container runs on, and the name
/// stays free.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_bad_command_is_told_and_leaves_nothing(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "bad-exec", Workload::Waits).await;
    let request = exec(fixture, &init.container, "bad", Workload::Missing);
    let missing = agent.exec(&request, fixture.deadline()).await;
    assert!(matches!(missing, Err(AgentError::ExecutableNotFound { .. })), "{missing:?}");
    let request = exec(fixture, &init.container, "bad", Workload::NotExecutable);
    let no_program = agent.exec(&request, fixture.deadline()).await;
    assert!(matches!(no_program, Err(AgentError::NotExecutable { .. })), "{no_program:?}");
    let mut request = exec(fixture, &init.container, "bad", Workload::Prints);
    request.process.set_args(Some(vec![]));
    let nothing = agent.exec(&request, fixture.deadline()).await;
    assert!(matches!(nothing, Err(AgentError::Refused { .. })), "{nothing:?}");
    let unknown = agent.wait(&request.reference()).await;
    assert!(matches!(unknown, Err(AgentError::NoSuchProcess { .. })), "{unknown:?}");
    let good = started(agent, fixture, &init, "bad", Workload::Prints).await;
    assert_eq!(drain(agent, &good).await.0, b"out");
    remove(agent, fixture, &init).await;
}

/// A process in a container that is unknown, or has ended, is not started.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_process_needs_a_running_container(agent: &impl Agent, fixture: &impl Fixture) {
    let request = exec(fixture, &container_id("nobody"), "e", Workload::Prints);
    let unknown = agent.exec(&request, fixture.deadline()).await;
    assert!(matches!(unknown, Err(AgentError::NoSuchContainer { .. })), "{unknown:?}");
    let init = running(agent, fixture, "ended", Workload::Prints).await;
    drain(agent, &init).await;
    agent.wait(&init).await.expect("the process ends");
    let request = exec(fixture, &init.container, "late", Workload::Prints);
    let late = agent.exec(&request, fixture.deadline()).await;
    assert!(matches!(late, Err(AgentError::Refused { .. })), "{late:?}");
    remove(agent, fixture, &init).await;
}

/// A name that a process has is not given to a second one, and the first runs on; it is free once
/// somebody has the exit status of the first. The container's own name is that of its init process.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_name_is_free_once_its_process_was_waited_for(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "names", Workload::Waits).await;
    let taken =
        agent.exec(&exec(fixture, &init.container, "names", Workload::Prints), fixture.deadline()).await;
    assert!(matches!(taken, Err(AgentError::ProcessExists { .. })), "{taken:?}");
    let first = started(agent, fixture, &init, "name", Workload::Copies).await;
    let request = exec(fixture, &init.container, "name", Workload::Prints);
    let second = agent.exec(&request, fixture.deadline()).await;
    assert!(matches!(second, Err(AgentError::ProcessExists { .. })), "{second:?}");
    write_all(agent, &first, b"x").await;
    assert_eq!(agent.read_stdout(&first, 10).await.expect("the first lives"), b"x");
    agent.close_stdin(&first, fixture.deadline()).await.expect("stdin is closed");
    drain(agent, &first).await;
    assert_eq!(agent.wait(&first).await.expect("it ends"), ExitStatus(0));
    let third = started(agent, fixture, &init, "name", Workload::Prints).await;
    assert_eq!(drain(agent, &third).await.0, b"out");
    assert_eq!(agent.wait(&third).await.expect("it ends"), ExitStatus(7));
    remove(agent, fixture, &init).await;
}

/// A signal to one process leaves the others of the container alone; one to all ends them all.
///
/// # Panics
/// When the obligation is not met.
pub async fn signals_reach_whom_they_are_for(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "signals", Workload::Waits).await;
    let one = started(agent, fixture, &init, "one", Workload::Waits).await;
    let other = started(agent, fixture, &init, "other", Workload::Waits).await;
    let target = SignalTarget::Process(one.clone());
    agent.signal(&target, Signal::TERM, fixture.deadline()).await.expect("the signal is sent");
    assert_eq!(agent.wait(&one).await.expect("it ends"), ExitStatus(143));
    alive(agent, &other).await;
    alive(agent, &init).await;
    let all = SignalTarget::All(init.container.clone());
    agent.signal(&all, Signal::KILL, fixture.deadline()).await.expect("the signal is sent");
    for process in [&other, &init] {
        assert_eq!(agent.wait(process).await.expect("it ends"), ExitStatus(137));
    }
    remove(agent, fixture, &init).await;
}

/// With its first process, or its removal, all processes of a container end, and who waits is told.
///
/// # Panics
/// When the obligation is not met.
pub async fn no_process_outlives_its_container(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "outlived", Workload::Waits).await;
    let process = started(agent, fixture, &init, "e", Workload::Waits).await;
    kill(agent, fixture, &init).await.expect("the signal is sent");
    assert_eq!(agent.wait(&process).await.expect("it ends"), ExitStatus(137));
    remove(agent, fixture, &init).await;

    let init = running(agent, fixture, "removed", Workload::Waits).await;
    let process = started(agent, fixture, &init, "e", Workload::Waits).await;
    let mut waiting = std::pin::pin!(agent.wait(&process));
    let early = tokio::time::timeout(std::time::Duration::from_millis(100), &mut waiting).await;
    assert!(early.is_err(), "it ended by itself: {early:?}");
    remove(agent, fixture, &init).await;
    assert_eq!(waiting.await.expect("the status is told"), ExitStatus(137));
}

/// Twenty processes at once each get and give all their bytes.
///
/// # Panics
/// When the obligation is not met.
pub async fn twenty_processes_at_once_lose_no_byte(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "many", Workload::Waits).await;
    let one = async |number: usize| {
        let process = started(agent, fixture, &init, &format!("e{number}"), Workload::Copies).await;
        // No two processes have the same bytes, and no length is that of a pipe.
        let sent: Vec<u8> = (0..=250).cycle().skip(number).take(100_000 + number).collect();
        let write = async {
            write_all(agent, &process, &sent).await;
            agent.close_stdin(&process, fixture.deadline()).await.expect("stdin is closed");
        };
        let ((), (stdout, stderr)) = tokio::join!(write, drain(agent, &process));
        assert!(stdout == sent, "process {number}: {} of {} bytes came", stdout.len(), sent.len());
        assert_eq!(stderr, b"");
        assert_eq!(agent.wait(&process).await.expect("it ends"), ExitStatus(0));
    };
    all((0..MANY).map(one)).await;
    remove(agent, fixture, &init).await;
}

/// A terminal has the size that it was told, and merges what its process writes; a process without a
/// terminal refuses to be told a size.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_terminal_has_the_size_it_was_told(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "terminal", Workload::Waits).await;
    let size = TerminalSize { rows: 37, columns: 91 };
    let resized = agent.resize_terminal(&init, size, fixture.deadline()).await;
    assert!(matches!(resized, Err(AgentError::Refused { .. })), "{resized:?}");
    let mut request = exec(fixture, &init.container, "tty", Workload::PrintsTerminalSize);
    request.process.set_terminal(Some(true));
    agent.exec(&request, fixture.deadline()).await.expect("the process starts");
    let process = request.reference();
    agent.resize_terminal(&process, size, fixture.deadline()).await.expect("the size is told");
    write_all(agent, &process, b"\n").await;
    let (stdout, stderr) = drain(agent, &process).await;
    let text = String::from_utf8_lossy(&stdout);
    assert!(text.lines().any(|line| line.trim() == "37 91"), "{text:?}");
    assert_eq!(stderr, b"");
    assert_eq!(agent.wait(&process).await.expect("it ends"), ExitStatus(0));
    remove(agent, fixture, &init).await;
}

async fn started(
    agent: &impl Agent,
    fixture: &impl Fixture,
    init: &ProcessRef,
    name: &str,
    workload: Workload,
) -> ProcessRef {
    let request = exec(fixture, &init.container, name, workload);
    agent.exec(&request, fixture.deadline()).await.expect("the process starts");
    request.reference()
}

/// Asserts that `process` has not ended.
async fn alive(agent: &impl Agent, process: &ProcessRef) {
    let wait = tokio::time::timeout(std::time::Duration::from_millis(100), agent.wait(process)).await;
    assert!(wait.is_err(), "{process} has ended: {wait:?}");
}

/// Runs all of `work` at the same time.
async fn all(work: impl Iterator<Item: Future<Output = ()>>) {
    let mut running: Vec<Pin<Box<_>>> = work.map(Box::pin).collect();
    poll_fn(|context| {
        running.retain_mut(|work| work.as_mut().poll(context).is_pending());
        if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
