//! A container between its creation and its end: what commands may do to it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use oci_spec::runtime::{Hooks, LinuxResources, Process as ProcessSpec};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, mpsc, watch};
use vc_agent::Signal;
use vc_container::{Container, Process, Sandbox, State};
use vc_types::HostPath;

use super::stats;
use crate::failure::{Chain, Failure};
use crate::oci::hooks::{self, Point};
use crate::oci::protocol::{Ask, Reply};
use crate::oci::record::{Record, Status};
use crate::oci::root::ContainerDir;
use crate::oci::state::state_json;

/// What signal n leaves in an exit code is 128 + n; of a process that died with its machine, this is all that is
/// known.
pub(super) const KILLED: u8 = 137;

/// How a container came to its end.
#[derive(Debug)]
pub(super) enum End {
    /// Its process ended.
    Exited(u8),
    /// It was told to end before it ran, or by force.
    Ended(u8),
    /// Nobody knows, but for this.
    Lost(String),
}

impl End {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Exited(code) | Self::Ended(code) => *code,
            Self::Lost(_) => KILLED,
        }
    }

    /// Has the log tell what the exit code does not.
    pub(super) fn log(&self) {
        if let Self::Lost(why) = self {
            tracing::error!(why, "how the container ended is not known");
        }
    }
}

pub(super) struct Life {
    pub(super) container: Container,
    pub(super) sandbox: Sandbox,
    dir: ContainerDir,
    record: Mutex<Record>,
    /// Held by the one command that changes what the container is: each finds it as the one before has left it.
    turn: Semaphore,
    hooks: Option<Hooks>,
    /// Told once the process runs.
    pub(super) started: Notify,
    /// Whether the process is to die of SIGKILL.
    killed: watch::Sender<bool>,
    end: mpsc::Sender<End>,
    /// How many processes were executed.
    execs: AtomicU64,
}

impl Life {
    pub(super) fn new(
        container: Container,
        sandbox: Sandbox,
        record: Record,
        dir: ContainerDir,
    ) -> (Self, mpsc::Receiver<End>) {
        let (end, ends) = mpsc::channel(1);
        let hooks = record.hooks.clone();
        let (started, killed) = (Notify::new(), watch::channel(false).0);
        let (record, turn, execs) = (Mutex::new(record), Semaphore::new(1), AtomicU64::new(0));
        (Self { container, sandbox, dir, record, turn, hooks, started, killed, end, execs }, ends)
    }

    pub(super) async fn answer(&self, ask: Ask) -> Reply {
        let result = match ask {
            Ask::Start => self.start().await,
            Ask::Kill { signal, all } => self.kill(signal, all).await,
            Ask::Pause => self.pause().await,
            Ask::Resume => self.resume().await,
            Ask::Update { resources } => self.update(*resources).await,
            Ask::Stats => self.stats().await,
            Ask::VolumeStats { volume } => self.volume_stats(volume).await,
            Ask::ResizeVolume { volume, bytes } => self.resize_volume(volume, bytes).await,
            Ask::End { force } => self.end(force),
            Ask::Exec { .. } | Ask::Add { .. } => Err(Failure::message("this is answered by a conversation")),
        };
        result.unwrap_or_else(failed)
    }

    async fn start(&self) -> Result<Reply, Failure> {
        let turn = self.turn().await;
        let status = self.status();
        if status != Status::Created {
            return Ok(Reply::Refused(status));
        }
        let started = self.container.start().await.map_err(Failure::from);
        let state = started.and_then(|()| self.go(Status::Running, None)).inspect_err(|failure| {
            self.give_up(End::Lost(failure.line()));
        })?;
        drop(turn);
        self.started.notify_one();
        let hooked = hooks::run(self.hooks.as_ref(), Point::Poststart, &state).await;
        if hooked.is_err() {
            self.give_up(End::Ended(KILLED));
        }
        hooked.map(|()| Reply::Done)
    }

    /// Waits until no other command changes the container: all that they do has a deadline.
    async fn turn(&self) -> SemaphorePermit<'_> {
        self.turn.acquire().await.expect("nobody closes it")
    }

    async fn kill(&self, signal: u8, all: bool) -> Result<Reply, Failure> {
        let status = self.status();
        if status == Status::Stopped {
            return Ok(Reply::Refused(status));
        }
        let signal = Signal::new(signal.into()).map_err(|error| Failure::step("use the signal", error))?;
        if signal == Signal::KILL && status == Status::Created {
            // Nobody waits for the end of a process that never ran.
            self.give_up(End::Ended(KILLED));
            return Ok(Reply::Done);
        }
        // The first process of a pod may have ended before the last of its members.
        let ended = self.container.status().is_none_or(|status| status.state == State::Stopped);
        if all && !ended {
            self.container.signal_all(signal).await?;
        } else if !ended {
            self.container.signal(signal).await?;
        }
        if signal == Signal::KILL {
            self.killed.send_replace(true);
        }
        Ok(Reply::Done)
    }

    /// Waits until SIGKILL was sent. Cancel safe.
    pub(super) async fn killed(&self) {
        // Its sender is here.
        let _ = self.killed.subscribe().wait_for(|killed| *killed).await;
    }

    async fn pause(&self) -> Result<Reply, Failure> {
        let _turn = self.turn().await;
        let status = self.status();
        if status != Status::Running {
            return Ok(Reply::Refused(status));
        }
        self.container.pause().await?;
        let written = self.go(Status::Paused, None);
        if written.is_err() {
            // As it is written down; the first error is the one that counts.
            let _ = self.container.resume().await;
        }
        written.map(|_| Reply::Done)
    }

    async fn resume(&self) -> Result<Reply, Failure> {
        let _turn = self.turn().await;
        let status = self.status();
        if status != Status::Paused {
            return Ok(Reply::Refused(status));
        }
        self.container.resume().await?;
        self.go(Status::Running, None).map(|_| Reply::Done)
    }

    async fn update(&self, resources: LinuxResources) -> Result<Reply, Failure> {
        let _turn = self.turn().await;
        self.container.update(resources).await?;
        Ok(Reply::Done)
    }

    async fn stats(&self) -> Result<Reply, Failure> {
        Ok(Reply::Stats(stats::as_runc(&self.container.stats().await?)))
    }

    async fn volume_stats(&self, volume: HostPath) -> Result<Reply, Failure> {
        Ok(Reply::Volume(stats::of_volume(&self.sandbox.volume_stats(volume).await?)))
    }

    async fn resize_volume(&self, volume: HostPath, bytes: u64) -> Result<Reply, Failure> {
        self.sandbox.resize_volume(volume, bytes).await?;
        Ok(Reply::Done)
    }

    /// Runs another process in the container.
    pub(super) async fn exec(&self, process: ProcessSpec) -> Result<Result<Process, Status>, Failure> {
        let status = self.status();
        if status != Status::Running {
            return Ok(Err(status));
        }
        let number = self.execs.fetch_add(1, Ordering::Relaxed);
        let name = format!("exec{number}").parse().expect("letters, then digits");
        Ok(Ok(self.container.exec(name, process).await?))
    }

    fn end(&self, force: bool) -> Result<Reply, Failure> {
        let status = self.status();
        if !force && matches!(status, Status::Running | Status::Paused) {
            return Ok(Reply::Refused(status));
        }
        self.give_up(End::Ended(KILLED));
        Ok(Reply::Done)
    }

    /// Ends the container, unless it is ending.
    pub(super) fn give_up(&self, end: End) {
        // One end is waited for; it is on its way then.
        let _ = self.end.try_send(end);
    }

    pub(super) fn status(&self) -> Status {
        self.record().status
    }

    /// Writes down what it is now; gives its state (JSON).
    pub(super) fn go(&self, status: Status, code: Option<u8>) -> Result<String, Failure> {
        let mut record = self.record();
        // What cannot be written down is not so.
        let mut next = record.clone();
        next.status = status;
        next.exit_code = code;
        next.write(&self.dir)?;
        *record = next;
        Ok(state_json(&record, status))
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().expect("nothing panics while it holds the record")
    }
}

/// A failure as an answer.
pub(super) fn failed(failure: Failure) -> Reply {
    Reply::Failed { code: failure.code(), message: failure.line() }
}

/// A failure's reason in one line.
pub(super) fn reason(error: &vc_container::OperationError) -> String {
    Chain(error).to_string()
}
