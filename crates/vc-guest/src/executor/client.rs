//! The agent's side of the executor: asks it for workers, and starts it again when it is gone.

use super::launch::LaunchError;
use crate::log::chain;
use crate::reaper::{Exit, Reaper};
use crate::sys;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use nix::unistd::Pid;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

/// How long an executor may take to copy itself.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// What a worker is given.
#[derive(Debug)]
pub(super) struct Handover {
    /// Its end of the socket over which it gets its task.
    pub(super) control: OwnedFd,
    /// The standard streams of what it makes.
    pub(super) streams: Option<[OwnedFd; 3]>,
    /// The process whose namespaces it joins.
    pub(super) init: Option<OwnedFd>,
}

impl Handover {
    fn descriptors(&self) -> Vec<RawFd> {
        let streams = self.streams.iter().flatten();
        let all = std::iter::once(&self.control).chain(streams).chain(&self.init);
        all.map(AsRawFd::as_raw_fd).collect()
    }
}

/// What is asked of the task that owns the executor.
#[derive(Debug)]
pub(super) enum Request {
    /// Have an executor running.
    WarmUp,
    /// Have a worker made.
    Worker(Handover, oneshot::Sender<Result<(Pid, Exit), LaunchError>>),
}

/// Owns the executor, and starts it when there is none: at first, and when it was killed.
pub(super) async fn serve(reaper: Reaper, mut requests: mpsc::Receiver<Request>) {
    let mut executor = None;
    while let Some(request) = requests.recv().await {
        match request {
            Request::WarmUp if executor.is_none() => match Executor::start(&reaper).await {
                Ok(started) => executor = Some(started),
                Err(error) => tracing::warn!(error = chain(&error), "no container executor yet"),
            },
            Request::WarmUp => {}
            Request::Worker(handover, reply) => {
                let worker = worker(&mut executor, &reaper, &handover).await;
                if let Err(Ok((worker, _))) = reply.send(worker) {
                    // Nobody will give it a task.
                    let _ = reaper.signal(worker, libc::SIGKILL);
                }
            }
        }
    }
}

/// A worker; of an executor started anew, if that is what it takes.
async fn worker(
    slot: &mut Option<Executor>,
    reaper: &Reaper,
    handover: &Handover,
) -> Result<(Pid, Exit), LaunchError> {
    // Taken out, and put back only when it has answered.
    if let Some(mut executor) = slot.take()
        && let Ok(worker) = in_time(executor.worker(reaper, handover)).await
    {
        *slot = Some(executor);
        return worker.map_err(LaunchError::Clone);
    }
    let mut executor = Executor::start(reaper).await?;
    let worker = in_time(executor.worker(reaper, handover)).await.map_err(LaunchError::Executor)?;
    *slot = Some(executor);
    worker.map_err(LaunchError::Clone)
}

/// An executor that does not answer, such as one that was stopped, is as good as dead.
async fn in_time<T>(answer: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    tokio::time::timeout(ANSWER_WAIT, answer).await.unwrap_or_else(|late| Err(late.into()))
}

/// A running executor.
#[derive(Debug)]
struct Executor(UnixStream);

impl Executor {
    /// Starts the executor.
    async fn start(reaper: &Reaper) -> Result<Self, LaunchError> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(LaunchError::Spawn)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("executor").arg(theirs.as_raw_fd().to_string()).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let reaper = reaper.clone();
        let spawned = tokio::task::spawn_blocking(move || reaper.spawn(&mut command, Some(theirs.as_fd())));
        match spawned.await {
            // Nobody waits for its end: the socket tells it.
            Ok(result) => drop(result.map_err(LaunchError::Spawn)?),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
        ours.set_nonblocking(true).map_err(LaunchError::Spawn)?;
        Ok(Self(UnixStream::from_std(ours).map_err(LaunchError::Spawn)?))
    }

    /// Has the executor make a worker, and watches it.
    ///
    /// # Errors
    /// Any error means that this executor is of no more use, except that it cannot clone.
    ///
    /// # Cancel safety
    /// Of one that was dropped the executor must not be used again: its answer would be taken for the
    /// next one's.
    async fn worker(
        &mut self,
        reaper: &Reaper,
        handover: &Handover,
    ) -> std::io::Result<Result<(Pid, Exit), Errno>> {
        let descriptors = handover.descriptors();
        debug_assert!(descriptors.len() <= sys::MAX_DESCRIPTORS);
        let word = [if handover.streams.is_some() { 3 } else { 0 }];
        let send = || {
            let control = [ControlMessage::ScmRights(&descriptors)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let bytes = [IoSlice::new(&word)];
            Ok(sendmsg::<UnixAddr>(self.0.as_raw_fd(), &bytes, &control, flags, None)?)
        };
        self.0.async_io(Interest::WRITABLE, send).await?;
        let mut answer = [0; 4];
        self.0.read_exact(&mut answer).await?;
        Ok(match i32::from_ne_bytes(answer) {
            pid if pid > 0 => {
                let pid = Pid::from_raw(pid);
                // It waits for its task, so it has not ended unless someone killed it.
                Ok((pid, reaper.adopt(pid)))
            }
            errno => Err(Errno::from_raw(-errno)),
        })
    }
}
