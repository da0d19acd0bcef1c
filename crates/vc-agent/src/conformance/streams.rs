//! The obligations of [`Streams`](crate::Streams).

use std::time::Duration;

use super::processes::{kill, remove, running};
use super::{Fixture, Workload};
use crate::{Agent, AgentError, ExitStatus, ProcessRef};

/// Standard output and error come apart, whole, and both end.
///
/// # Panics
/// When the obligation is not met.
pub async fn stdout_and_stderr_come_apart_and_end(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "apart", Workload::Prints).await;
    assert_eq!(drain(agent, &init).await, (b"out".to_vec(), b"err".to_vec()));
    let again = agent.read_stdout(&init, 10).await;
    assert!(again.as_ref().is_ok_and(Vec::is_empty), "after the end: {again:?}");
    assert_eq!(agent.wait(&init).await.expect("the status is told"), ExitStatus(7));
    remove(agent, fixture, &init).await;
}

/// A read brings at most what was asked for, and what it leaves comes with the next.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_read_brings_no_more_than_was_asked(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "few", Workload::Prints).await;
    let mut all = Vec::new();
    for _ in 0..3 {
        let bytes = agent.read_stdout(&init, 1).await.expect("stdout can be read");
        assert_eq!(bytes.len(), 1);
        all.extend(bytes);
    }
    assert_eq!(all, b"out");
    drain(agent, &init).await;
    remove(agent, fixture, &init).await;
}

/// Closing standard input gives the process its end of file and leaves its output alone (L-30: one flag
/// closed all three); closing it again is no error.
///
/// # Panics
/// When the obligation is not met.
pub async fn closing_stdin_ends_input_and_nothing_else(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "half", Workload::Copies).await;
    write_all(agent, &init, b"last words").await;
    for _ in 0..2 {
        agent.close_stdin(&init, fixture.deadline()).await.expect("stdin is closed");
    }
    let (stdout, stderr) = drain(agent, &init).await;
    assert_eq!((&stdout[..], &stderr[..]), (&b"last words"[..], &b""[..]));
    assert_eq!(agent.wait(&init).await.expect("the status is told"), ExitStatus(0));
    remove(agent, fixture, &init).await;
}

/// A mebibyte goes in and comes out the same, written and read at the same time.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_mebibyte_passes_whole(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "much", Workload::Copies).await;
    let sent: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
    let write = async {
        write_all(agent, &init, &sent).await;
        agent.close_stdin(&init, fixture.deadline()).await.expect("stdin is closed");
    };
    let ((), (stdout, _)) = tokio::join!(write, drain(agent, &init));
    assert!(stdout == sent, "{} of {} bytes came back", stdout.len(), sent.len());
    remove(agent, fixture, &init).await;
}

/// Writing to a process that has ended fails as a closed stream.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_write_after_the_end_is_closed(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "deaf", Workload::Prints).await;
    drain(agent, &init).await;
    let mut late = agent.write_stdin(&init, b"x").await;
    for _ in 0..100 {
        // The process has closed its output and may be about to end: a pipe takes what fits in it.
        if late.is_err() {
            break;
        }
        late = agent.write_stdin(&init, &[b'x'; 4096]).await;
    }
    assert!(matches!(late, Err(AgentError::StreamClosed)), "{late:?}");
    remove(agent, fixture, &init).await;
}

/// A write to a process that reads nothing waits; a signal gets through all the same, and ends it.
///
/// # Panics
/// When the obligation is not met.
pub async fn a_blocked_write_holds_up_no_signal(agent: &impl Agent, fixture: &impl Fixture) {
    let init = running(agent, fixture, "blocked", Workload::Waits).await;
    let write = async {
        loop {
            if let Err(error) = agent.write_stdin(&init, &[0; 65_536]).await {
                return error;
            }
        }
    };
    let mut write = std::pin::pin!(write);
    let early = tokio::time::timeout(Duration::from_millis(500), &mut write).await;
    assert!(early.is_err(), "nobody reads, and still: {early:?}");
    kill(agent, fixture, &init).await.expect("the signal is sent");
    let end = tokio::time::timeout(fixture.deadline().remaining(), write).await.expect("the write ends");
    assert!(matches!(end, AgentError::StreamClosed), "{end:?}");
    assert_eq!(agent.wait(&init).await.expect("the status is told"), ExitStatus(137));
    remove(agent, fixture, &init).await;
}

/// All of both streams, to their ends.
pub(super) async fn drain(agent: &impl Agent, process: &ProcessRef) -> (Vec<u8>, Vec<u8>) {
    let stdout = async {
        let mut all = Vec::new();
        loop {
            match agent.read_stdout(process, 65_536).await.expect("stdout can be read") {
                bytes if bytes.is_empty() => return all,
                bytes => all.extend(bytes),
            }
        }
    };
    let stderr = async {
        let mut all = Vec::new();
        loop {
            match agent.read_stderr(process, 65_536).await.expect("stderr can be read") {
                bytes if bytes.is_empty() => return all,
                bytes => all.extend(bytes),
            }
        }
    };
    tokio::join!(stdout, stderr)
}

pub(super) async fn write_all(agent: &impl Agent, process: &ProcessRef, mut data: &[u8]) {
    while !data.is_empty() {
        let taken = agent.write_stdin(process, data).await.expect("stdin takes data");
        assert!((1..=data.len()).contains(&taken), "{taken} of {} bytes", data.len());
        data = &data[taken..];
    }
}
