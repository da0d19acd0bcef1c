//! Serving: commands by the socket, signals, the end of the container, and what follows from it.

use std::io;
use std::os::unix::net::UnixStream as Creator;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::exec;
use super::life::{End, Life, reason};
use super::make::Made;
use super::orders::Answer;
use crate::failure::Failure;
use crate::oci::client::listen;
use crate::oci::console::Console;
use crate::oci::protocol::{Ask, Reply, Request, VERSION, write_frame};
use crate::oci::record::Status;
use crate::oci::talk::{receive, send};
use crate::signals::{Received, Signals};
use crate::stdio::Output;

/// How long a command may take to send its request.
const CONVERSATION: Duration = Duration::from_secs(10);

/// How long output may take to be read by whoever has the other end, once the container was killed.
const LAST_OUTPUT: Duration = Duration::from_secs(10);

/// Tells the creator that the container is there, serves it to its end, and gives its exit code.
pub(super) async fn serve(made: Made, mut signals: Signals, creator: &mut Creator) -> Result<u8, Failure> {
    let Made { sandbox, container, record, dir, console, output } = made;
    let (life, mut ends) = Life::new(container, sandbox, record, dir.clone());
    let life = Arc::new(life);
    let listening = listen(&dir).and_then(|listener| {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    });
    let ready = listening.and_then(|listener| write_frame(creator, &Answer::Created).map(|()| listener));
    let end = match ready {
        Ok(listener) => {
            tokio::select! {
                end = watch(life.clone(), output) => end,
                Some(end) = ends.recv() => end,
                end = accept(listener, life.clone()) => end,
                end = hear(&mut signals, &life, console.as_ref()) => end,
            }
        }
        Err(error) => End::Lost(format!("whoever asked for the container could not be told: {error}")),
    };
    finish(&life, &end).await?;
    Ok(end.code())
}

/// Ends the machine, and writes down that the container is stopped.
async fn finish(life: &Life, end: &End) -> Result<(), Failure> {
    if let End::Lost(why) = end {
        tracing::error!(why, "how the container ended is not known");
    }
    if let Err(left) = life.sandbox.stop().await {
        tracing::error!("{}", Failure::message("the machine did not go away").with_left(&left).for_engines());
    }
    life.go(Status::Stopped, Some(end.code())).map(drop)
}

/// Waits for the end of the process, once it runs; before, for the end of the machine.
async fn watch(life: Arc<Life>, mut output: Output) -> End {
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
    life.killed.notified().await;
    tokio::time::sleep(LAST_OUTPUT).await;
}

/// Passes signals on to the container, and the size of the terminal.
async fn hear(signals: &mut Signals, life: &Arc<Life>, console: Option<&Console>) -> End {
    loop {
        match signals.next().await {
            Received::Forward(signal) if signal.ends() && life.status() == Status::Created => {
                return End::Ended(Received::Forward(signal).exit_code());
            }
            Received::Forward(signal) => {
                let life = life.clone();
                // Not awaited: a guest that hangs must not keep the next signal from being heard.
                tokio::spawn(async move {
                    if let Err(error) = life.container.signal(signal.signal).await {
                        tracing::warn!(signal = ?signal.signal, cause = %error.cause, "a signal was not passed on");
                    }
                });
            }
            Received::Resized => {
                if let Some(size) = console.and_then(Console::size) {
                    let container = life.container.clone();
                    tokio::spawn(async move {
                        if let Err(error) = container.resize_terminal(size).await {
                            tracing::warn!(cause = %error.cause, "the terminal's size was not passed on");
                        }
                    });
                }
            }
        }
    }
}

/// Serves commands, each in a task of its own, so that none waits behind another.
async fn accept(listener: UnixListener, life: Arc<Life>) -> End {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let life = life.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &life).await {
                        tracing::warn!(%error, "a command was not answered");
                    }
                });
            }
            Err(error) => return End::Lost(format!("commands cannot be accepted any more: {error}")),
        }
    }
}

async fn converse(stream: UnixStream, life: &Life) -> io::Result<()> {
    let (request, files) = tokio::time::timeout(CONVERSATION, receive::<Request>(&stream)).await??;
    let reply = match request.ask {
        _ if request.version != VERSION => Reply::Version(VERSION),
        Ask::Exec { process } => return exec::serve(stream, life, *process, files).await,
        ask => life.answer(ask).await,
    };
    send(&stream, &reply).await
}
