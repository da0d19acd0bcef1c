//! Serving: commands by the socket, signals, the end of the container, and what follows from it.

use std::io;
use std::os::unix::net::UnixStream as Creator;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{UnixListener, UnixStream};
use vc_agent::{Signal, TerminalSize};

use super::life::{End, Life, reason};
use super::make::Made;
use super::orders::Answer;
use super::pod::Pod;
use super::{exec, member};
use crate::failure::Failure;
use crate::oci::client;
use crate::oci::console::Console;
use crate::oci::protocol::{Ask, Reply, Request, VERSION, write_frame};
use crate::oci::record::Status;
use crate::oci::root::ContainerDir;
use crate::oci::talk::{receive, send};
use crate::signals::{Received, Signals};
use crate::stdio::Output;
use crate::sys;

/// How long a command may take to send its request.
const CONVERSATION: Duration = Duration::from_secs(10);

/// How long output may take to be read by whoever has the other end, once the container was killed.
const LAST_OUTPUT: Duration = Duration::from_secs(10);

/// From one attempt to accept a command to the next.
const RETRY: Duration = Duration::from_millis(100);

/// How long the members of a pod may take to be done with, once the machine has ended.
const MEMBERS: Duration = Duration::from_secs(10);

/// Tells the creator that the container is there, serves it and the members of its pod to their end, and gives its exit
/// code.
pub(super) async fn serve(
    pod: Pod,
    (made, console): (Made, Option<Console>),
    mut signals: Signals,
    creator: &mut Creator,
) -> Result<u8, Failure> {
    let pod = Arc::new(pod);
    let Made { container, record, dir, output } = made;
    let (life, mut ends) = Life::new(container, pod.sandbox.clone(), record, dir.clone());
    let life = Arc::new(life);
    let ready = listen(&dir).and_then(|listener| write_frame(creator, &Answer::Created).map(|()| listener));
    let end = match ready {
        Ok(listener) => {
            let last = async {
                let end = watch(life.clone(), output).await;
                // The members may go on without it, but not when nobody is to go on.
                tokio::select! {
                    () = pod.alone() => {}
                    () = life.killed() => {}
                }
                end
            };
            tokio::select! {
                end = last => end,
                Some(end) = ends.recv() => end,
                end = accept(listener, life.clone(), pod.clone()) => end,
                end = hear(&mut signals, &life, console.as_ref()) => end,
            }
        }
        Err(error) => End::Lost(format!("whoever asked for the container could not be told: {error}")),
    };
    finish(&life, &pod, &end).await?;
    Ok(end.code())
}

/// Ends the machine, and writes down that the container is stopped.
async fn finish(life: &Life, pod: &Pod, end: &End) -> Result<(), Failure> {
    end.log();
    if let Err(left) = pod.sandbox.stop().await {
        tracing::error!("{}", Failure::message("the machine did not go away").with_left(&left).for_engines());
    }
    if tokio::time::timeout(MEMBERS, pod.alone()).await.is_err() {
        tracing::error!("the members of the pod are not done with");
    }
    life.go(Status::Stopped, Some(end.code())).map(drop)
}

/// Listens for commands.
pub(super) fn listen(dir: &ContainerDir) -> io::Result<UnixListener> {
    let listener = client::listen(dir)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Waits for the end of the process, once it runs; before, for the end of the machine.
pub(super) async fn watch(life: Arc<Life>, mut output: Output) -> End {
    tokio::select! {
        () = life.started.notified() => {}
        exit = life.sandbox.machine_exited() => {
            return End::Lost(exit.map_or_else(String::new, |exit| format!("the machine ended: {exit}")));
        }
    }
    // The agent may forget the output once it has told how the process ended.
    let drained = tokio::select! {
        drained = output.drain() => drained,
        () = unread(&life) => {
            tracing::warn!("nobody reads the last of the container's output");
            Ok(())
        }
    };
    if let Err(failure) = drained {
        tracing::error!("{}", failure.for_engines());
    }
    match life.container.wait().await {
        Ok(status) => End::Exited(status.0),
        Err(error) => End::Lost(reason(&error)),
    }
}

/// Resolves when the container was killed some time ago.
async fn unread(life: &Life) {
    life.killed().await;
    tokio::time::sleep(LAST_OUTPUT).await;
}

/// Passes signals on to the container, and the size of the terminal.
async fn hear(signals: &mut Signals, life: &Arc<Life>, console: Option<&Console>) -> End {
    loop {
        match signals.next().await {
            Received::Forward(signal) if signal.ends() && life.status() == Status::Created => {
                return End::Ended(Received::Forward(signal).exit_code());
            }
            Received::Forward(signal) => pass_on(life, signal.signal),
            Received::Resized => {
                if let Some(size) = console.and_then(Console::size) {
                    resize(life, size);
                }
            }
        }
    }
}

/// Passes a signal on. Not awaited: a guest that hangs must not keep the next one from being heard.
pub(super) fn pass_on(life: &Life, signal: Signal) {
    let container = life.container.clone();
    tokio::spawn(async move {
        if let Err(error) = container.signal(signal).await {
            tracing::warn!(?signal, cause = %error.cause, "a signal was not passed on");
        }
    });
}

/// Passes the size of the terminal on; not awaited, as above.
pub(super) fn resize(life: &Life, size: TerminalSize) {
    let container = life.container.clone();
    tokio::spawn(async move {
        if let Err(error) = container.resize_terminal(size).await {
            tracing::warn!(cause = %error.cause, "the terminal's size was not passed on");
        }
    });
}

/// Serves commands, each in a task of its own, so that none waits behind another.
pub(super) async fn accept(listener: UnixListener, life: Arc<Life>, pod: Arc<Pod>) -> End {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (life, pod) = (life.clone(), pod.clone());
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &life, pod).await {
                        tracing::warn!(%error, "a command was not answered");
                    }
                    // Another may not come for hours.
                    sys::give_memory_back();
                });
            }
            Err(error) if passes(&error) => {
                tracing::warn!(%error, "a command has to wait");
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return End::Lost(format!("commands cannot be accepted any more: {error}")),
        }
    }
}

/// Whether what accept(2) has met goes away: too many open files, too little memory, a command that is gone.
fn passes(error: &io::Error) -> bool {
    let passing = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::CONNABORTED, Errno::INTR];
    Errno::from_io_error(error).is_some_and(|error| passing.contains(&error))
}

async fn converse(stream: UnixStream, life: &Life, pod: Arc<Pod>) -> io::Result<()> {
    let (request, files) = tokio::time::timeout(CONVERSATION, receive::<Request>(&stream)).await??;
    let reply = match request.ask {
        _ if request.version != VERSION => Reply::Version(VERSION),
        Ask::Exec { process } => return exec::serve(stream, life, *process, files).await,
        Ask::Add { member } => return member::serve(stream, pod, *member, files).await,
        ask => life.answer(ask).await,
    };
    send(&stream, &reply).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_open_files_are_no_end() {
        let errors =
            [libc::EMFILE, libc::ENOMEM, libc::EINVAL, libc::EBADF].map(io::Error::from_raw_os_error);
        assert_eq!(errors.each_ref().map(passes), [true, true, false, false]);
    }
}
