//! The standard streams: what comes in here goes to the command, what it writes comes out here.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin, stdout};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use vc_agent::{AgentError, Signal};
use vc_container::{Cause, Container, OperationError, Stream};

use crate::failure::Failure;

/// How much is passed on at a time, in bytes.
const CHUNK: u32 = 64 << 10;

/// What a terminal takes as the end of the input at the start of a line (termios(3), VEOF): Ctrl-D.
const END_OF_INPUT: u8 = 4;

/// Which streams there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    pub(crate) terminal: bool,
    pub(crate) interactive: bool,
}

/// The command's outputs on their way here.
pub(crate) struct Output {
    pumps: Vec<JoinHandle<Result<(), Failure>>>,
    input: Option<JoinHandle<()>>,
}

impl Streams {
    /// Starts to pass data on, in both directions.
    pub(crate) fn connect(self, container: &Container) -> Output {
        let pump = |stream| tokio::spawn(pump_out(container.clone(), stream));
        let mut pumps = vec![pump(Stream::Stdout)];
        if !self.terminal {
            pumps.push(pump(Stream::Stderr));
        }
        // A terminal that nobody types at stays open.
        let input =
            (self.interactive || !self.terminal).then(|| tokio::spawn(pump_in(container.clone(), self)));
        Output { pumps, input }
    }
}

impl Output {
    /// Waits until all that the command wrote has come out here.
    pub(crate) async fn drain(&mut self) -> Result<(), Failure> {
        for pump in self.pumps.drain(..) {
            pump.await.map_err(|error: JoinError| Failure::step("pass the output on", error))??;
        }
        Ok(())
    }
}

impl Drop for Output {
    /// Ends the input, which may be waited for in vain for ever. Not with the outputs: a command may
    /// close those and read on.
    fn drop(&mut self) {
        if let Some(input) = &self.input {
            input.abort();
        }
    }
}

async fn pump_out(container: Container, stream: Stream) -> Result<(), Failure> {
    let mut first = stream == Stream::Stdout;
    let mut broken = None;
    loop {
        let data = container.read(stream, CHUNK).await?;
        if data.is_empty() {
            return broken.map_or(Ok(()), Err);
        }
        if std::mem::take(&mut first) {
            tracing::info!(milestone = "first output", "the command wrote something");
        }
        if broken.is_some() {
            continue;
        }
        let written = blocking(move || write_all(here(stream), &data)).await;
        if let Err(error) = written {
            // A local command would die of SIGPIPE at its next write, or of the error. What it still
            // writes is read all the same, or it could not end.
            let killed = container.signal(Signal::KILL).await;
            killed.unwrap_or_else(|error| tracing::warn!(cause = %error.cause, "could not end the command"));
            if error.kind() == io::ErrorKind::BrokenPipe {
                return discard(&container, stream).await;
            }
            broken = Some(Failure::step(format!("write to {stream:?}").to_lowercase(), error));
        }
    }
}

/// Reads an output to its end; nobody is there to see it.
async fn discard(container: &Container, stream: Stream) -> Result<(), Failure> {
    while !container.read(stream, CHUNK).await?.is_empty() {}
    Ok(())
}

async fn pump_in(container: Container, streams: Streams) {
    match feed(&container, streams).await {
        Ok(()) => {}
        // It reads no more, or has ended: what is left was not for it.
        Err(OperationError { cause: Cause::Agent(AgentError::StreamClosed), .. }) => {}
        Err(error) => tracing::debug!(cause = %error.cause, "the input was not passed on to its end"),
    }
}

async fn feed(container: &Container, streams: Streams) -> Result<(), OperationError> {
    if streams.interactive {
        pass_input(container).await?;
    }
    if streams.terminal {
        // Nothing else ends the input of a terminal, which is an output as well.
        write_stdin(container, vec![END_OF_INPUT]).await?;
    }
    container.close_stdin().await
}

async fn pass_input(container: &Container) -> Result<(), OperationError> {
    loop {
        let data = blocking(|| read_some(stdin())).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the standard input cannot be read to its end");
            Vec::new()
        });
        if data.is_empty() {
            return Ok(());
        }
        write_stdin(container, data).await?;
    }
}

async fn write_stdin(container: &Container, mut data: Vec<u8>) -> Result<(), OperationError> {
    while !data.is_empty() {
        let taken = container.write_stdin(data.clone()).await?;
        // An agent that takes nothing, or more than there is, is not waited for again.
        data.drain(..if taken == 0 { data.len() } else { taken.min(data.len()) });
    }
    Ok(())
}

fn here(stream: Stream) -> BorrowedFd<'static> {
    match stream {
        Stream::Stdout => stdout(),
        Stream::Stderr => stderr(),
    }
}

/// Runs on a thread that may block: the streams are shared with whoever started this process, so they
/// cannot be made non-blocking, and may be so already.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn read_some(from: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; CHUNK as usize];
    loop {
        match rustix::io::read(from, &mut buffer) {
            Ok(read) => {
                buffer.truncate(read);
                return Ok(buffer);
            }
            Err(error) => wait(from, PollFlags::IN, error)?,
        }
    }
}

fn write_all(to: BorrowedFd<'_>, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match rustix::io::write(to, data) {
            Ok(written) => data = &data[written..],
            Err(error) => wait(to, PollFlags::OUT, error)?,
        }
    }
    Ok(())
}

/// Waits until the call that met `error` can be repeated, if it can.
fn wait(fd: BorrowedFd<'_>, flags: PollFlags, error: Errno) -> io::Result<()> {
    match error {
        Errno::INTR => Ok(()),
        Errno::AGAIN => match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        },
        other => Err(other.into()),
    }
}
