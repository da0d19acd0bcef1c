//! `vc start`, `vc kill` and `vc delete`: what commands ask of an owner, or do when there is none.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use vc_agent::Signal;
use vc_types::ContainerId;

use super::cgroup;
use super::client::ask;
use super::hooks::{self, Point};
use super::protocol::{Ask, Reply, VERSION};
use super::record::{Record, Status};
use super::remove::remove;
use super::root::{ContainerDir, Lock, Root};
use super::state::{Now, state_json};
use crate::failure::Failure;

/// How long an owner may take to end its machine and itself. Each step of it has its own deadline.
const END: Duration = Duration::from_secs(120);

/// Lets a created container run.
pub(crate) fn start(root: &Root, id: &ContainerId) -> Result<(), Failure> {
    let refused = |status| {
        let why = match status {
            Status::Stopped => "cannot start a container that has stopped; delete it, and create another",
            Status::Creating => "cannot start a container that is being created",
            _ => "cannot start a container that has been started",
        };
        Failure::message(format!("container {id}: {why}"))
    };
    act(&root.get(id)?, Ask::Start, refused)
}

/// Sends a signal to a container's process.
pub(crate) fn kill(root: &Root, id: &ContainerId, signal: Signal, all: bool) -> Result<(), Failure> {
    let signal = u8::try_from(signal.number()).expect("signals are below 65");
    let kill = act(&root.get(id)?, Ask::Kill { signal, all }, |_| {
        Failure::message(format!("container {id}: container not running"))
    });
    // runc's rule: to everybody in a container that has ended is to nobody, and that is fine.
    if all && kill.is_err() && Now::of(&root.get(id)?)?.status() == Status::Stopped { Ok(()) } else { kill }
}

/// Removes a container.
pub(crate) fn delete(root: &Root, id: &ContainerId, force: bool) -> Result<(), Failure> {
    let Some(dir) = root.find(id) else {
        let missing = || Failure::message(format!("container {id} does not exist"));
        return if force { Ok(()) } else { Err(missing()) };
    };
    let lock = match lock(&dir)? {
        Some(lock) => lock,
        None => end_owner(&dir, id, force)?,
    };
    let record = Record::read(&dir);
    remove(dir, lock)?;
    match record {
        Ok(record) => {
            cgroup::remove(&record.cgroups);
            poststop(&record)
        }
        // It is gone all the same; what was to be run after it is not known.
        Err(failure) => {
            tracing::warn!("{}", failure.for_engines());
            Ok(())
        }
    }
}

/// Removes the container when the last step to it has failed: then it is nobody's.
pub(super) fn undone<T>(root: &Root, id: &ContainerId, result: Result<T, Failure>) -> Result<T, Failure> {
    result.map_err(|failure| match delete(root, id, true) {
        Ok(()) => failure,
        Err(left) => failure.and(&left),
    })
}

fn poststop(record: &Record) -> Result<(), Failure> {
    if record.hooks.as_ref().and_then(|hooks| hooks.poststop().as_ref()).is_none_or(Vec::is_empty) {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::step("run the hooks", error))?;
    let state = state_json(record, Status::Stopped);
    runtime.block_on(hooks::run_all(record.hooks.as_ref(), Point::Poststop, &state));
    Ok(())
}

/// Has the owner end the container, and waits until it is gone.
fn end_owner(dir: &ContainerDir, id: &ContainerId, force: bool) -> Result<Lock, Failure> {
    let pid = Record::read(dir)?.pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Failure::message(format!("container {id} is being created")))?;
    let failed = |error: Errno| Failure::step(format!("wait for the owner of container {id}"), error);
    // While the owner holds the lock, the number is its own.
    let owner = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(owner) => Some(owner),
        Err(Errno::SRCH) => None,
        Err(error) => return Err(failed(error)),
    };
    let refused = |status: Status| {
        Failure::message(format!(
            "cannot delete container {id} that is not stopped: {}; kill it first, or use --force",
            word(status)
        ))
    };
    // An owner that does not listen any more is ending.
    if Now::of(dir)?.status() != Status::Stopped {
        act_if_listening(dir, Ask::End { force }, refused)?;
    }
    if let Some(owner) = owner {
        let end = Timespec::try_from(END).expect("two minutes");
        poll(&mut [PollFd::new(&owner, PollFlags::IN)], Some(&end)).map_err(failed)?;
    }
    let hangs = || {
        Failure::message(format!(
            "the owner of container {id} (pid {}) did not end within {END:?}; end it with `kill -9`, and try again",
            pid.as_raw_nonzero()
        ))
    };
    lock(dir)?.ok_or_else(hangs)
}

fn lock(dir: &ContainerDir) -> Result<Option<Lock>, Failure> {
    dir.try_lock().map_err(|error| Failure::step(format!("lock {}", dir.path().display()), error))
}

/// Asks the owner; a container without one has stopped.
pub(super) fn act(dir: &ContainerDir, what: Ask, refused: impl Fn(Status) -> Failure) -> Result<(), Failure> {
    let now = Now::of(dir)?;
    if now.status() == Status::Stopped {
        return Err(refused(Status::Stopped));
    }
    if act_if_listening(dir, what, &refused)? {
        return Ok(());
    }
    let creating = now.record.status == Status::Creating;
    Err(refused(if creating { Status::Creating } else { Status::Stopped }))
}

/// Whether an owner was there to do it.
fn act_if_listening(
    dir: &ContainerDir,
    what: Ask,
    refused: impl Fn(Status) -> Failure,
) -> Result<bool, Failure> {
    let asked = ask(dir, what);
    match asked.map_err(|error| Failure::step("talk to the owner of the container", error))? {
        None => Ok(false),
        Some(Reply::Refused(status)) => Err(refused(status)),
        Some(reply) => accept(reply).map(|_| true),
    }
}

/// A reply that is no failure.
pub(super) fn accept(reply: Reply) -> Result<Reply, Failure> {
    match reply {
        Reply::Failed { code, message } => Err(Failure::message(message).with_code(code)),
        Reply::Version(theirs) => Err(Failure::message(format!(
            "the owner of the container is of another version of vc (protocol {theirs}, not {VERSION}); use that vc"
        ))),
        reply => Ok(reply),
    }
}

/// The name of a status.
pub(super) fn word(status: Status) -> String {
    let status = serde_json::to_value(status).expect("a word");
    status.as_str().unwrap_or_default().to_owned()
}

/// Freezes a container, or lets it go on.
pub(crate) fn freeze(root: &Root, id: &ContainerId, ask: Ask) -> Result<(), Failure> {
    let verb = if matches!(ask, Ask::Pause) { "pause" } else { "resume" };
    act(&root.get(id)?, ask, |status| {
        Failure::message(format!("container {id}: cannot {verb} a container that is {}", word(status)))
    })
}
