//! The agent's side: starts an executor, and takes over the process that it made.

use super::protocol::{Answer, Failure, Task};
use crate::reaper::{Exit, Reaper, wait};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vc_types::Deadline;

/// The longest answer taken from an executor, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Why no process was started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The executor says why.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The executor cannot be started.
    #[error("cannot start the container executor")]
    Spawn(#[source] std::io::Error),
    /// The executor ended without an answer.
    #[error("the container executor ended with status {0}, without an answer")]
    Silent(i32),
    /// The executor's answer cannot be read.
    #[error("cannot read the answer of the container executor")]
    Read(#[source] std::io::Error),
    /// No answer in time.
    #[error("the container executor did not answer in time")]
    Late,
}

/// Starts executors.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    pub(crate) reaper: Reaper,
}

impl Launcher {
    /// Has `task` done by an executor whose standard streams are `stdio`, and watches the process
    /// that it makes.
    ///
    /// # Errors
    /// [`LaunchError`]; no process is left then, except what the executor's task had put into a
    /// cgroup when it came too late.
    pub(crate) async fn launch(
        &self,
        task: &Task,
        stdio: [Stdio; 3],
        deadline: Deadline,
    ) -> Result<(Pid, Exit), LaunchError> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(LaunchError::Spawn)?;
        let (executor, mut ended) = self.spawn(task, stdio, theirs.into()).await?;
        ours.set_nonblocking(true).map_err(LaunchError::Spawn)?;
        let mut ours = tokio::net::UnixStream::from_std(ours).map_err(LaunchError::Spawn)?;
        let answer = tokio::select! {
            biased;
            line = read_line(&mut ours) => line.map_err(LaunchError::Read)?,
            status = wait(&mut ended) => return Err(LaunchError::Silent(status)),
            () = tokio::time::sleep(deadline.remaining()) => {
                // Its process may be the very one that hangs; the caller empties the cgroup.
                let _ = self.reaper.signal(executor, Signal::SIGKILL);
                return Err(LaunchError::Late);
            }
        };
        let answer = serde_json::from_slice(&answer).map_err(|e| LaunchError::Read(e.into()))?;
        let started = match answer {
            Answer::Started { pid } => {
                let pid = Pid::from_raw(pid);
                Ok((pid, self.reaper.adopt(pid)))
            }
            Answer::Failed(failure) => Err(failure.into()),
        };
        // Only now may the executor go. When it is gone already there is nobody to tell.
        let _ = ours.write_all(b"\n").await;
        started
    }

    async fn spawn(
        &self,
        task: &Task,
        [stdin, stdout, stderr]: [Stdio; 3],
        control: OwnedFd,
    ) -> Result<(Pid, Exit), LaunchError> {
        let task = serde_json::to_string(task).expect("a task is plain data");
        let mut command = Command::new("/proc/self/exe");
        command.arg("executor").arg(control.as_raw_fd().to_string()).arg(task);
        command.env_clear().stdin(stdin).stdout(stdout).stderr(stderr);
        let reaper = self.reaper.clone();
        let spawned = tokio::task::spawn_blocking(move || reaper.spawn(&mut command, Some(control.as_fd())));
        match spawned.await {
            Ok(result) => result.map_err(LaunchError::Spawn),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

async fn read_line(stream: &mut tokio::net::UnixStream) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut buffer = [0; 1024];
    while !line.ends_with(b"\n") {
        let length = stream.read(&mut buffer).await?;
        if length == 0 || line.len() + length > MAX_ANSWER {
            // The stream ends when all processes that hold it have: the executor's end tells more.
            return std::future::pending().await;
        }
        line.extend_from_slice(&buffer[..length]);
    }
    Ok(line)
}
