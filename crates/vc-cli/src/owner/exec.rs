//! A process that a command has executed in the container: its streams, and what the command says about it.

use std::io;
use std::os::fd::OwnedFd;

use oci_spec::runtime::Process as ProcessSpec;
use tokio::net::UnixStream;
use vc_agent::{Signal, TerminalSize};
use vc_container::Process;

use super::life::{Life, failed, reason};
use crate::failure::Failure;
use crate::oci::protocol::{Reply, Word};
use crate::oci::talk::{receive, send};
use crate::stdio::{Output, Streams};

/// Runs the process with the streams that came along, and tells the command how it ended.
pub(super) async fn serve(
    stream: UnixStream,
    life: &Life,
    process: ProcessSpec,
    files: Vec<OwnedFd>,
) -> io::Result<()> {
    let terminal = process.terminal().unwrap_or(false);
    let Some(streams) = streams(terminal, files) else {
        return send(&stream, &failed(Failure::message("the process's streams did not come along"))).await;
    };
    let process = match life.exec(process).await {
        Ok(Ok(process)) => process,
        Ok(Err(status)) => return send(&stream, &Reply::Refused(status)).await,
        Err(failure) => return send(&stream, &failed(failure)).await,
    };
    let mut output = streams.connect(&process);
    let attended = async {
        send(&stream, &Reply::Started).await?;
        tokio::select! {
            reply = end(&process, &mut output) => send(&stream, &reply).await,
            error = listen(&stream, &process) => Err(error),
        }
    };
    let attended = attended.await;
    if attended.is_err() {
        // Whoever asked for it is gone, and with it whoever would read its output.
        if let Err(error) = process.signal(Signal::KILL).await {
            tracing::warn!(cause = %error.cause, "a process that nobody attends could not be ended");
        }
    }
    attended
}

/// The streams that came along.
pub(super) fn streams(terminal: bool, files: Vec<OwnedFd>) -> Option<Streams> {
    let mut files = files.into_iter();
    let (input, output) = (files.next(), files.next()?);
    let errors = if terminal { None } else { Some(files.next()?) };
    Some(Streams { terminal, input, output, errors })
}

async fn end(process: &Process, output: &mut Output) -> Reply {
    // The agent may forget the output once it has told how the process ended.
    if let Err(failure) = output.drain().await {
        tracing::warn!("{}", failure.for_engines());
    }
    match process.wait().await {
        Ok(status) => Reply::Exited(status.0),
        Err(error) => failed(Failure::message(reason(&error))),
    }
}

/// Does what the command says, until it goes away; gives how that was noticed.
async fn listen(stream: &UnixStream, process: &Process) -> io::Error {
    loop {
        let done = match receive::<Word>(stream).await {
            Err(error) => return error,
            Ok((Word::Signal(number), _)) => match Signal::new(number.into()) {
                Ok(signal) => process.signal(signal).await,
                Err(error) => return io::Error::other(error),
            },
            Ok((Word::Resize { rows, columns }, _)) => {
                process.resize_terminal(TerminalSize { rows, columns }).await
            }
        };
        if let Err(error) = done {
            tracing::warn!(cause = %error.cause, "what a command said about its process was not done");
        }
    }
}
