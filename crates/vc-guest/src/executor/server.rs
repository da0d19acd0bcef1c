//! The executor: a process with a single thread that copies itself for each task.

use super::namespace::pause;
use super::worker::Worker;
use crate::sys::{self, Child};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// Serves as the agent's helper when the command line says so: `executor DESCRIPTOR` or `pause`.
///
/// `None` when this process is to be the agent. Call it first of all: workers need a process with a
/// single thread.
pub fn run_helper() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).take(2).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["pause"] => Some(pause()),
        ["executor", descriptor] => Some(executor(descriptor)),
        _ => None,
    }
}

fn executor(descriptor: &str) -> ExitCode {
    let Some(socket) = descriptor.parse().ok().and_then(sys::inherited_descriptor) else {
        return ExitCode::FAILURE;
    };
    crate::limits::lower_open_files();
    serve(UnixStream::from(socket))
}

/// Makes a worker for each request, until the agent is gone.
fn serve(mut socket: UnixStream) -> ExitCode {
    loop {
        let mut word = [0];
        let descriptors = match sys::receive_descriptors(socket.as_fd(), &mut word, MsgFlags::empty()) {
            Ok(descriptors) if !descriptors.is_empty() => descriptors,
            Err(Errno::EINTR) => continue,
            _ => return ExitCode::SUCCESS,
        };
        // A sibling: the agent is its parent, and gets its status.
        let answer = match sys::child(Child::Sibling, None) {
            Ok(None) => {
                drop(socket);
                return work(descriptors, word[0]);
            }
            Ok(Some(pid)) => pid.as_raw(),
            Err(errno) => -(errno as i32),
        };
        if socket.write_all(&answer.to_ne_bytes()).is_err() {
            return ExitCode::FAILURE;
        }
    }
}

/// The descriptors are the control socket, `streams` standard streams, and the container's first process.
fn work(descriptors: Vec<OwnedFd>, streams: u8) -> ExitCode {
    let mut descriptors = descriptors.into_iter();
    let Some(control) = descriptors.next() else { return ExitCode::FAILURE };
    let streams: Vec<OwnedFd> = descriptors.by_ref().take(streams.into()).collect();
    let init = descriptors.next();
    Worker { control: control.into(), init }.run(&streams)
}
