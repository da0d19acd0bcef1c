//! Staying with a process that was executed in a container: what `vc exec` does, and what `vc exec --detach` leaves
//! behind. It passes signals and sizes on, and ends as the process does.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as Blocking;
use std::path::PathBuf;
use std::process::ExitCode;

use oci_spec::runtime::Process;
use rustix::process::setsid;
use rustix::stdio::{stderr, stdin, stdout};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use vc_agent::TerminalSize;

use super::client::begin;
use super::console::Console;
use super::control::{accept, word};
use super::protocol::{Ask, Reply, Word, read_frame, write_frame};
use super::root::ContainerDir;
use super::talk::{receive, send};
use crate::failure::Failure;
use crate::owner::{Answer, CREATOR};
use crate::signals::{Received, Signals};
use crate::sys;
use crate::terminal::{self, RawMode};

/// What SIGKILL leaves in an exit code: a process whose container ended was killed with it.
const KILLED: u8 = 137;

/// A process that is wanted in a container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// The container's directory.
    pub(crate) dir: PathBuf,
    pub(crate) process: Process,
    pub(crate) console_socket: Option<PathBuf>,
}

/// Takes orders from `vc exec --detach`, and stays with the process.
pub(crate) fn attend_as_ordered() -> ExitCode {
    let failed = |error| Failure::step("take orders; `vc attend` is for `vc exec`", error);
    let creator = sys::inherited(CREATOR).map(Blocking::from).map_err(failed);
    let mut creator = match creator {
        Ok(creator) => creator,
        Err(failure) => return failure.report(),
    };
    let orders = read_frame::<Orders>(&mut creator).map_err(failed);
    let orders = match orders.and_then(|orders| orders.ok_or_else(|| Failure::message("no orders came"))) {
        Ok(orders) => orders,
        Err(failure) => return failure.report(),
    };
    // Away from the terminal of whoever called; the leader of a group is away already.
    let _ = setsid();
    let ready = || {
        let told = write_frame(&mut &creator, &Answer::Created);
        told.map_err(|error| Failure::step("tell that the process runs", error))
    };
    match attend(&orders, ready) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let answer = Answer::Failed { code: failure.code(), message: failure.line() };
            // Once the process ran, nobody listens any more.
            let _ = write_frame(&mut creator, &answer);
            ExitCode::from(failure.code())
        }
    }
}

/// Has the process run, says so by `ready`, and gives its exit code.
pub(super) fn attend(orders: &Orders, ready: impl FnOnce() -> Result<(), Failure>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::step("start", error))?;
    let console = orders.console_socket.as_deref().map(Console::hand_over).transpose()?;
    let stream = ask(orders, console.as_ref())?;
    runtime.block_on(async {
        let failed = |error| Failure::step("talk to the owner of the container", error);
        let mut signals = Signals::listen().map_err(|error| Failure::step("listen for signals", error))?;
        stream.set_nonblocking(true).map_err(failed)?;
        let stream = UnixStream::from_std(stream).map_err(failed)?;
        match accept(receive(&stream).await.map_err(failed)?.0)? {
            Reply::Started => ready()?,
            Reply::Refused(status) => {
                let status = word(status);
                return Err(Failure::message(format!("cannot exec in a container that is {status}")));
            }
            other => return Err(Failure::message(format!("the owner of the container answered {other:?}"))),
        }
        let own_terminal = console.is_none() && orders.process.terminal().unwrap_or(false);
        let _raw = if own_terminal { RawMode::enter() } else { None };
        let size = || console.as_ref().map_or_else(terminal::size, Console::size);
        if own_terminal && let Some(size) = size() {
            send(&stream, &resize(size)).await.map_err(failed)?;
        }
        let end = receive::<Reply>(&stream);
        tokio::pin!(end);
        loop {
            let said = tokio::select! {
                reply = &mut end => return ended(reply.map(|(reply, _)| reply)),
                received = signals.next() => match received {
                    Received::Forward(signal) => number(signal.signal.number()).map(Word::Signal),
                    Received::Resized => size().map(resize),
                },
            };
            if let Some(said) = said {
                // If nobody listens any more, that is an end, and the other arm's.
                let _ = send(&stream, &said).await;
            }
        }
    })
}

fn ask(orders: &Orders, console: Option<&Console>) -> Result<Blocking, Failure> {
    let failed = |error: io::Error| Failure::step("talk to the owner of the container", error);
    let ask = Ask::Exec { process: Box::new(orders.process.clone()) };
    let dir = ContainerDir::of_owner(orders.dir.clone());
    let asked = if let Some(console) = console {
        let end = console.end().map_err(failed)?;
        begin(&dir, ask, &[end.as_fd(), end.as_fd()])
    } else if orders.process.terminal().unwrap_or(false) {
        begin(&dir, ask, &[stdin(), stdout()])
    } else {
        begin(&dir, ask, &[stdin(), stdout(), stderr()])
    };
    asked.map_err(failed)?.ok_or_else(|| Failure::message("cannot exec in a container that is stopped"))
}

fn ended(reply: io::Result<Reply>) -> Result<u8, Failure> {
    match reply {
        Ok(Reply::Exited(code)) => Ok(code),
        Ok(reply) => {
            Err(Failure::message(format!("the owner of the container answered {:?}", accept(reply)?)))
        }
        Err(error)
            if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) =>
        {
            Ok(KILLED)
        }
        Err(error) => Err(Failure::step("talk to the owner of the container", error)),
    }
}

fn resize(size: TerminalSize) -> Word {
    Word::Resize { rows: size.rows, columns: size.columns }
}

fn number(signal: u32) -> Option<u8> {
    u8::try_from(signal).ok()
}
