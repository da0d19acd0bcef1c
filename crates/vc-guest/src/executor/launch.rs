//! The agent's side of a task: has a worker do it, and takes over the process that it made.

use super::client::{Handover, Request, serve};
use super::protocol::{Answer, Failure, Task};
use crate::reaper::{Exit, Reaper, wait};
use nix::errno::Errno;
use nix::unistd::Pid;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use vc_types::Deadline;

/// The longest answer taken from a worker, in bytes.
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
    /// The executor was started anew, and ended again.
    #[error("the container executor does not serve")]
    Executor(#[source] std::io::Error),
    /// The executor cannot copy itself.
    #[error("cannot start a worker of the container executor")]
    Clone(#[source] Errno),
    /// The worker ended without an answer.
    #[error("the container executor's worker ended with status {0}, without an answer")]
    Silent(i32),
    /// Its control socket failed.
    #[error("cannot talk to the container executor's worker")]
    Talk(#[source] std::io::Error),
    /// No answer in time.
    #[error("the container executor did not answer in time")]
    Late,
}

/// Has tasks done by the executor.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    pub(crate) reaper: Reaper,
    requests: mpsc::Sender<Request>,
    spent: Arc<Mutex<Spent>>,
}

/// How many tasks were done or failed, and how long that took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) tasks: u64,
    pub(crate) time: Duration,
}

impl Launcher {
    /// A launcher whose processes `reaper` watches. The executor is started for the first task.
    pub(crate) fn new(reaper: Reaper) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        tokio::spawn(serve(reaper.clone(), receiver));
        Self { reaper, requests, spent: Arc::default() }
    }

    /// Has the executor started, so that the first task need not wait for that.
    pub(crate) async fn warm_up(&self) {
        // Without its task every launch fails, and says so.
        let _ = self.requests.send(Request::WarmUp).await;
    }

    /// What was spent on tasks so far.
    pub(crate) fn spent(&self) -> Spent {
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `task` done by a worker, and watches the process that it makes, whose standard streams are
    /// `streams`. `init` is the first process of the container that an exec joins.
    ///
    /// # Errors
    /// [`LaunchError`]; no process is left then, except what the task had put into a cgroup when it
    /// came too late.
    pub(crate) async fn launch(
        &self,
        task: &Task,
        streams: Option<[OwnedFd; 3]>,
        init: Option<OwnedFd>,
        deadline: Deadline,
    ) -> Result<(Pid, Exit), LaunchError> {
        let start = Instant::now();
        let launched = self.launch_untimed(task, streams, init, deadline).await;
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.tasks += 1;
        spent.time += start.elapsed();
        launched
    }

    async fn launch_untimed(
        &self,
        task: &Task,
        streams: Option<[OwnedFd; 3]>,
        init: Option<OwnedFd>,
        deadline: Deadline,
    ) -> Result<(Pid, Exit), LaunchError> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(LaunchError::Spawn)?;
        let handover = Handover { control: theirs.into(), streams, init };
        let worker = tokio::time::timeout(deadline.remaining(), self.worker(handover)).await;
        let (worker, mut ended) = worker.map_err(|_| LaunchError::Late)??;
        ours.set_nonblocking(true).map_err(LaunchError::Talk)?;
        let mut ours = UnixStream::from_std(ours).map_err(LaunchError::Talk)?;
        let answer = tokio::select! {
            biased;
            answer = ask(&mut ours, task) => answer.map_err(LaunchError::Talk)?,
            status = wait(&mut ended) => return Err(LaunchError::Silent(status)),
            () = tokio::time::sleep(deadline.remaining()) => {
                // Its process may be the very one that hangs; the caller empties the cgroup.
                let _ = self.reaper.signal(worker, libc::SIGKILL);
                return Err(LaunchError::Late);
            }
        };
        let started = match answer {
            Answer::Started { pid } => {
                let pid = Pid::from_raw(pid);
                Ok((pid, self.reaper.adopt(pid)))
            }
            Answer::Failed(failure) => Err(failure.into()),
        };
        // Only now may the worker go. When it is gone already there is nobody to tell.
        let _ = ours.write_all(b"\n").await;
        started
    }

    async fn worker(&self, handover: Handover) -> Result<(Pid, Exit), LaunchError> {
        let (reply, answer) = oneshot::channel();
        let gone = || LaunchError::Executor(std::io::ErrorKind::BrokenPipe.into());
        self.requests.send(Request::Worker(handover, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Gives the worker its task; returns its answer.
async fn ask(worker: &mut UnixStream, task: &Task) -> std::io::Result<Answer> {
    let mut line = serde_json::to_vec(task).expect("a task is plain data");
    line.push(b'\n');
    if worker.write_all(&line).await.is_err() {
        // It is gone, and its end tells more.
        return std::future::pending().await;
    }
    line.clear();
    let mut buffer = [0; 1024];
    while !line.ends_with(b"\n") {
        let length = worker.read(&mut buffer).await?;
        if length == 0 || line.len() + length > MAX_ANSWER {
            return std::future::pending().await;
        }
        line.extend_from_slice(&buffer[..length]);
    }
    Ok(serde_json::from_slice(&line)?)
}
