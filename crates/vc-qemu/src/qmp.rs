//! QMP: one task owns the stream and is never cancelled in mid-command.
//!
//! A caller's deadline ends the caller's wait, not the command: the reply still comes, is matched by
//! its id and dropped, and no other command can get it. A command that nobody waits for any more when its
//! turn comes is never sent. Commands and replies are `qapi`'s types; the
//! reading of lines is our own, since `qapi`'s stream ends with an error at an event it does not know,
//! and every release of QEMU adds some.
//!
//! Sources: QEMU's `docs/interop/qmp-spec`.

mod connection;
mod events;

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;

use qapi::qmp::QmpCommand;
use serde_json::{Map, Value};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use vc_types::{Deadline, DeviceId};

pub(crate) use events::{Events, UnplugOutcome};

use crate::plug::Command;
use connection::{Connection, Refusal, Request};

/// How many commands may wait for the task; more wait at the door, within their deadlines.
const QUEUE: usize = 32;

/// The oldest QEMU that is spoken to. What it lacks, nobody has tried.
const OLDEST: Version = Version { major: 7, minor: 2 };

/// A release of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: i64,
    pub(crate) minor: i64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpError {
    /// QEMU answered with an error.
    #[error("`{command}`: {description}")]
    Refused { command: &'static str, not_found: bool, description: String },
    /// No answer in time: whether QEMU did it is unknown.
    #[error("`{command}` had no answer in time")]
    Deadline { command: &'static str },
    /// The stream ended.
    #[error("the QMP stream ended before `{command}` was answered")]
    Closed { command: &'static str },
    /// The answer is not what the command promises.
    #[error("the answer to `{command}` cannot be read")]
    Malformed { command: &'static str, source: serde_json::Error },
    /// The greeting did not come or was none.
    #[error("QEMU did not greet")]
    Greeting(#[source] io::Error),
    /// The greeting is that of a release that is too old.
    #[error("this is QEMU {0}; install {OLDEST} or later")]
    TooOld(Version),
}

/// A handle to the task; cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Qmp {
    requests: mpsc::Sender<Request>,
    events: Events,
    version: Version,
}

impl Qmp {
    /// Reads the greeting, starts the task and leaves negotiation mode.
    pub(crate) async fn connect(stream: UnixStream, deadline: Deadline) -> Result<Self, QmpError> {
        let mut connection = Connection::new(stream);
        let greeting = tokio::time::timeout(deadline.remaining(), connection.greeting()).await;
        let greeting = greeting
            .map_err(|_| QmpError::Greeting(io::ErrorKind::TimedOut.into()))?
            .map_err(QmpError::Greeting)?;
        let release = greeting.QMP.version.qemu;
        let version = Version { major: release.major, minor: release.minor };
        if version < OLDEST {
            return Err(QmpError::TooOld(version));
        }
        let (requests, receiver) = mpsc::channel(QUEUE);
        let events = Events::default();
        tokio::spawn(connection.run(receiver, events.clone()));
        let qmp = Self { requests, events, version };
        qmp.execute(qapi::qmp::qmp_capabilities { enable: None }, deadline).await?;
        Ok(qmp)
    }

    /// The release of QEMU, as its greeting had it.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// Resolves when the stream has ended: QEMU has, or what it sends cannot be read.
    pub(crate) async fn closed(&self) {
        self.requests.closed().await;
    }

    /// For waiters other than those of [`Qmp::expect_unplug`].
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// Runs a command.
    pub(crate) async fn execute<C: QmpCommand>(
        &self,
        command: C,
        deadline: Deadline,
    ) -> Result<C::Ok, QmpError> {
        let value = self.call(&command, deadline).await?;
        serde_json::from_value(value).map_err(|source| QmpError::Malformed { command: C::NAME, source })
    }

    /// Runs a command whose answer differs between releases of QEMU, and leaves it unread.
    pub(crate) async fn query<C: QmpCommand>(
        &self,
        command: C,
        deadline: Deadline,
    ) -> Result<Value, QmpError> {
        self.call(&command, deadline).await
    }

    /// Resolves when QEMU has let go of `device`, or the guest refused. To be called before
    /// `device_del` is sent, so that the event cannot come unheard.
    pub(crate) fn expect_unplug(&self, device: &DeviceId) -> oneshot::Receiver<UnplugOutcome> {
        self.events.expect_unplug(device)
    }

    /// Runs commands without waiting for the answer of one before the next is sent; QEMU works on them
    /// in this order. Gives the answers in the same order.
    pub(crate) async fn pipeline(
        &self,
        commands: Vec<Command>,
        deadline: Deadline,
    ) -> Vec<Result<Value, QmpError>> {
        let mut sent = Vec::new();
        for Command { name, arguments, file } in commands {
            sent.push(self.send(name, arguments, file, deadline).await);
        }
        let mut answers = Vec::new();
        for sent in sent {
            answers.push(match sent {
                Ok(sent) => sent.answer(deadline).await,
                Err(error) => Err(error),
            });
        }
        answers
    }

    async fn call<C: QmpCommand>(&self, command: &C, deadline: Deadline) -> Result<Value, QmpError> {
        let arguments = serde_json::to_value(command);
        let arguments = arguments.map_err(|source| QmpError::Malformed { command: C::NAME, source })?;
        self.send(C::NAME, arguments, None, deadline).await?.answer(deadline).await
    }

    async fn send(
        &self,
        command: &'static str,
        arguments: Value,
        file: Option<Arc<File>>,
        deadline: Deadline,
    ) -> Result<Sent, QmpError> {
        let mut line = Map::new();
        line.insert("execute".into(), command.into());
        line.insert("arguments".into(), arguments);
        let (reply, answered) = oneshot::channel();
        let send = self.requests.send(Request { line, file, reply });
        match tokio::time::timeout(deadline.remaining(), send).await {
            Ok(Ok(())) => Ok(Sent { command, answered }),
            Ok(Err(_)) => Err(QmpError::Closed { command }),
            Err(_) => Err(QmpError::Deadline { command }),
        }
    }
}

/// A command on its way.
struct Sent {
    command: &'static str,
    answered: oneshot::Receiver<Result<Value, Refusal>>,
}

impl Sent {
    async fn answer(self, deadline: Deadline) -> Result<Value, QmpError> {
        let command = self.command;
        match tokio::time::timeout(deadline.remaining(), self.answered).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(Refusal { not_found, description }))) => {
                Err(QmpError::Refused { command, not_found, description })
            }
            Ok(Err(_)) => Err(QmpError::Closed { command }),
            Err(_) => Err(QmpError::Deadline { command }),
        }
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
