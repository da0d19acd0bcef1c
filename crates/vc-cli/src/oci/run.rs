//! `vc run --bundle DIR ID`, as runc has it: a container with a name, from its creation until it is gone.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};
use vc_types::ContainerId;

use super::own_terminal::{Handover, OwnTerminal};
use super::root::Root;
use super::state::Now;
use super::{control, create};
use crate::cli::{Create, Global, NamedRun};
use crate::failure::Failure;
use crate::run::load_bundle;
use crate::signals::{Received, Signals};

/// What a shell reports of a process that the signal of this number ended, less that number.
const SIGNALED: i32 = 128;

/// Creates and starts the container. Unless it is left behind then, stays with it, removes it, and gives its exit code.
pub(crate) fn run(root: &Root, global: &Global, options: NamedRun) -> Result<u8, Failure> {
    let NamedRun { mut create, detach } = options;
    let handover = match create.console_socket {
        None if !detach && has_terminal(&create)? => Some(Handover::listen()?),
        _ => None,
    };
    create.console_socket = create.console_socket.or_else(|| handover.as_ref().map(Handover::socket));
    create::create(root, global, &create)?;
    let id = &create.id;
    let done = match (handover, detach) {
        (_, true) => return control::undone(root, id, control::start(root, id)).map(|()| 0),
        (handover, false) => stay(root, id, handover),
    };
    let code = control::undone(root, id, done)?;
    // Somebody else may have removed it already.
    control::delete(root, id, true).map(|()| code)
}

fn has_terminal(options: &Create) -> Result<bool, Failure> {
    let spec = load_bundle(&options.bundle)?;
    Ok(spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false))
}

/// Starts the container, passes signals and the terminal on, and gives its exit code once its owner has ended.
fn stay(root: &Root, id: &ContainerId, handover: Option<Handover>) -> Result<u8, Failure> {
    let failed = |error| Failure::step(format!("wait for container {id}"), error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::step("start", error))?;
    // It is a child of this process, so the number is its own until it is waited for.
    let pid = Now::of(&root.get(id)?)?.record.pid;
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Failure::message(format!("container {id} ended before its start")))?;
    let owner = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
    runtime.block_on(async {
        let mut signals = Signals::listen().map_err(|error| Failure::step("listen for signals", error))?;
        let terminal = handover.map(Handover::take).transpose()?;
        control::start(root, id)?;
        let mut end = tokio::task::spawn_blocking(move || ended(&owner));
        loop {
            tokio::select! {
                end = &mut end => {
                    end.expect("waiting does not panic and is not aborted").map_err(failed)?;
                    break;
                }
                received = signals.next() => match received {
                    // What has ended meanwhile needs none.
                    Received::Forward(signal) => drop(control::kill(root, id, signal.signal, false)),
                    Received::Resized => terminal.as_ref().map_or((), OwnTerminal::pass_size),
                },
            }
        }
        if let Some(terminal) = terminal {
            terminal.drain();
        }
        let status = waitpid(Some(pid), WaitOptions::empty()).map_err(|error| failed(error.into()))?;
        let code = status.and_then(|(_, status)| {
            status.exit_status().or_else(|| Some(SIGNALED + status.terminating_signal()?))
        });
        Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(super::report::FAILED))
    })
}

/// Waits for the end of a process.
fn ended(process: &OwnedFd) -> std::io::Result<()> {
    // Signals are for other threads, and interrupt this one all the same.
    retry_on_intr(|| poll(&mut [PollFd::new(process, PollFlags::IN)], None))?;
    Ok(())
}
