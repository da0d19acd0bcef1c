//! Staying with a process that was executed in a container: what `vc exec` does, and what `vc exec --detach` leaves
//! behind; and with a container that is in the machine of another. It passes signals and sizes on, and ends as the process
//! does.

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
use super::member;
use super::protocol::{Ask, Reply, Word, read_frame, write_frame};
use super::root::{ContainerDir, Lock};
use super::talk::{receive, send};
use crate::failure::Failure;
use crate::owner::{Answer, CREATOR, LOCK};
use crate::signals::{Received, Signals};
use crate::sys;
use crate::terminal::{self, RawMode};

/// What SIGKILL leaves in an exit code: a process whose container ended was killed with it, and so was a container whose
/// machine did.
const KILLED: u8 = 137;

/// A process that is wanted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// The directory of the container whose owner is asked.
    pub(crate) dir: PathBuf,
    /// [`Ask::Exec`] or [`Ask::Add`].
    pub(crate) ask: Ask,
    pub(crate) console_socket: Option<PathBuf>,
}

impl Orders {
    fn has_terminal(&self) -> bool {
        let process = match &self.ask {
            Ask::Exec { process } => Some(&**process),
            Ask::Add { member } => member.spec.process().as_ref(),
            _ => None,
        };
        process.and_then(Process::terminal).unwrap_or(false)
    }

    /// What is said when nobody is there to be asked.
    fn stopped(&self) -> Failure {
        let id = self.dir.file_name().unwrap_or_default().display();
        Failure::message(match &self.ask {
            Ask::Add { .. } => format!("container {id}, whose machine this one is to be in, is stopped"),
            _ => "cannot exec in a container that is stopped".to_owned(),
        })
    }
}

/// Takes orders from `vc exec --detach`, and stays with the process; or from `vc create`, and stays with the container.
pub(crate) fn attend_as_ordered() -> ExitCode {
    match take_orders() {
        Ok((creator, orders, None)) => attend_for(creator, &orders, || Ok(()), || Ok(())),
        Ok((creator, orders, Some(lock))) => member::attend(creator, orders, lock),
        Err(failure) => failure.report(),
    }
}

fn take_orders() -> Result<(Blocking, Orders, Option<Lock>), Failure> {
    let failed = |error| Failure::step("take orders; `vc attend` is for `vc exec` and `vc create`", error);
    let mut creator = Blocking::from(sys::inherited(CREATOR).map_err(failed)?);
    // Only a container has one.
    let lock = sys::inherited(LOCK).ok().map(|lock| Lock::held(lock.into()));
    let orders: Orders =
        read_frame(&mut creator).map_err(failed)?.ok_or_else(|| Failure::message("no orders came"))?;
    // Away from the terminal of whoever called; the leader of a group is away already.
    let _ = setsid();
    Ok((creator, orders, lock))
}

/// Stays with what was ordered, and tells the creator of it once it is there and `prepare` was done; if it comes to nothing
/// before, `undo` is.
pub(super) fn attend_for(
    mut creator: Blocking,
    orders: &Orders,
    prepare: impl FnOnce() -> Result<(), Failure>,
    undo: impl FnOnce() -> Result<(), Failure>,
) -> ExitCode {
    let mut told = false;
    let ready = || {
        prepare()?;
        let answer = write_frame(&mut &creator, &Answer::Created);
        told = answer.is_ok();
        answer.map_err(|error| Failure::step("tell that the process is there", error))
    };
    let mut failure = match attend(orders, ready) {
        Ok(code) => return ExitCode::from(code),
        Err(failure) => failure,
    };
    // Nobody listens any more once it is there.
    if !told {
        if let Err(left) = undo() {
            failure = failure.and(&left);
        }
        let answer = Answer::Failed { code: failure.code(), message: failure.line() };
        let _ = write_frame(&mut creator, &answer);
    }
    ExitCode::from(failure.code())
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
        let own_terminal = console.is_none() && orders.has_terminal();
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
    let dir = ContainerDir::of_owner(orders.dir.clone());
    let asked = if let Some(console) = console {
        let end = console.end().map_err(failed)?;
        begin(&dir, &orders.ask, &[end.as_fd(), end.as_fd()])
    } else if orders.has_terminal() {
        begin(&dir, &orders.ask, &[stdin(), stdout()])
    } else {
        begin(&dir, &orders.ask, &[stdin(), stdout(), stderr()])
    };
    asked.map_err(failed)?.ok_or_else(|| orders.stopped())
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
