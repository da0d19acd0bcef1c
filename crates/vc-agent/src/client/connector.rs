//! Reaching the agent of a machine that may still be booting.

use std::io::{Error, ErrorKind};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use vc_types::{AgentAddress, Deadline};

use super::Client;
use super::announcement::Announcement;
use super::dial::dial;
use super::guest::check;
use super::line::Line;
use crate::{AgentError, Connect};

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// How long the first attempt may take. Each that takes longer doubles it, so that neither a
/// connection that hangs nor a slow guest keeps the agent from being found.
const FIRST_LIMIT: Duration = Duration::from_secs(1);

/// How long an agent may at least take to announce itself before it is taken for one that does not. A
/// guest that boots more slowly than that, on a busy host, would be spoken to at the worst moment, so it
/// gets half of the time there is.
const SILENCE: Duration = Duration::from_secs(10);

/// Connects to agents over vsock, hybrid vsock or a Unix socket.
///
/// Behind a vsock device in user space the agent is expected to announce itself
/// (`agent.ready_vport=1027` on its kernel's command line), and is not spoken to before; one that stays
/// silent for half of the time until the deadline, 10 s at least, is spoken to all the same. See
/// [`Connector::at_once`].
///
/// Before the guest listens, attempts end in various ways (no such socket, refused, reset, broken
/// pipe, end of file); they are repeated every 10 ms until the deadline. What no waiting can mend,
/// such as a lack of rights, is reported at once.
#[derive(Clone, Copy, Debug)]
pub struct Connector {
    silence: Duration,
}

impl Default for Connector {
    fn default() -> Self {
        Self { silence: SILENCE }
    }
}

impl Connector {
    /// One for agents that do not announce themselves, such as Kata's, or that have done so before:
    /// attempts begin at once.
    pub fn at_once() -> Self {
        Self { silence: Duration::ZERO }
    }

    /// Waits for the announcement of an agent behind a vsock device in user space.
    async fn hear(self, address: &AgentAddress, deadline: Deadline) {
        let AgentAddress::HybridVsock { socket, .. } = address else { return };
        if self.silence.is_zero() {
            return;
        }
        // Without a place to listen there is nothing to hear; the attempts will tell why.
        let Ok(announcement) = Announcement::listen(socket.as_path()) else { return };
        let silence = deadline.at_most(self.silence.max(deadline.remaining() / 2));
        // Both ends lead to the first attempt.
        let _ = timeout(silence.remaining(), announcement.heard()).await;
    }
}

impl Connect for Connector {
    type Agent = Client;

    async fn connect(&self, address: &AgentAddress, deadline: Deadline) -> Result<Client, AgentError> {
        let start = Instant::now();
        self.hear(address, deadline).await;
        let mut limit = FIRST_LIMIT;
        let mut last = None;
        loop {
            let error = match attempt(address, deadline.at_most(limit)).await {
                Ok(client) => return Ok(client),
                Err(error) => error,
            };
            if error.kind() == ErrorKind::TimedOut {
                limit *= 2;
            }
            let hopeless = is_hopeless(&error);
            // That the deadline cut the attempt short tells less than why the one before it failed.
            if !deadline.is_over() || last.is_none() {
                last = Some(error);
            }
            if let Some(last) = last.take_if(|_| hopeless || deadline.remaining() <= PAUSE) {
                let (address, waited) = (address.to_string(), start.elapsed());
                return Err(AgentError::Unreachable { address, waited, last });
            }
            sleep(PAUSE).await;
        }
    }
}

async fn attempt(address: &AgentAddress, deadline: Deadline) -> Result<Client, Error> {
    let in_time = |error| move |_| Error::new(ErrorKind::TimedOut, error);
    let calls = timeout(deadline.remaining(), dial(address)).await;
    let calls = Line::new(address.clone(), calls.map_err(in_time("the connection was not made in time"))??);
    check(&calls, deadline).await.map_err(no_health)?;
    let streams = timeout(deadline.remaining(), dial(address)).await;
    let streams = streams.map_err(in_time("the second connection was not made in time"))??;
    Ok(Client::new(calls, Line::new(address.clone(), streams)))
}

fn no_health(error: AgentError) -> Error {
    let kind = match &error {
        AgentError::Deadline { .. } => ErrorKind::TimedOut,
        AgentError::Disconnected { .. } => ErrorKind::UnexpectedEof,
        AgentError::Unimplemented { .. } | AgentError::Malformed { .. } => ErrorKind::InvalidData,
        _ => ErrorKind::Other,
    };
    Error::new(kind, error)
}

fn is_hopeless(error: &Error) -> bool {
    use ErrorKind::{InvalidData, InvalidInput, NotADirectory, PermissionDenied, Unsupported};
    matches!(error.kind(), InvalidData | InvalidInput | NotADirectory | PermissionDenied | Unsupported)
}
