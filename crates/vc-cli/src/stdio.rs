//! The standard streams: what comes in here goes to the command, what it writes comes out here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::stdio::{stderr, stdin, stdout};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use vc_agent::{AgentError, Signal};
use vc_container::{Cause, OperationError, Process, Stream};

use crate::failure::Failure;

/// How much of an output is asked for at a time, in bytes: the most that one answer of the agent carries. Each answer
/// costs a way to the guest and back.
const MOST: u32 = 1 << 20;

/// How much of the input is passed on at a time, in bytes.
const CHUNK: usize = 64 << 10;

/// What a terminal takes as the end of the input at the start of a line (termios(3), VEOF): Ctrl-D.
const END_OF_INPUT: u8 = 4;

/// Where the command's streams come from and go to.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Whether the command has a terminal: one output, and an input that nothing but a key ends.
    pub(crate) terminal: bool,
    /// Without one, the command finds the end of its input at once; at a terminal it waits for ever.
    pub(crate) input: Option<OwnedFd>,
    /// Where its standard output goes.
    pub(crate) output: OwnedFd,
    /// Where its standard error goes, if that is another one.
    pub(crate) errors: Option<OwnedFd>,
}

/// The command's outputs on their way here.
pub(crate) struct Output {
    pumps: Vec<JoinHandle<Result<(), Failure>>>,
    input: Option<Input>,
}

/// The command's input on its way there.
struct Input {
    pump: JoinHandle<()>,
    stop: Option<Arc<OwnedFd>>,
}

impl Streams {
    /// This process's own; the input only if it is passed on.
    pub(crate) fn own(terminal: bool, interactive: bool) -> io::Result<Self> {
        Ok(Self {
            terminal,
            input: if interactive { Some(stdin().try_clone_to_owned()?) } else { None },
            output: stdout().try_clone_to_owned()?,
            errors: if terminal { None } else { Some(stderr().try_clone_to_owned()?) },
        })
    }

    /// Starts to pass data on, in both directions.
    pub(crate) fn connect(self, process: &Process) -> Output {
        let pump = |stream, to| tokio::spawn(pump_out(process.clone(), stream, Arc::new(to)));
        let mut pumps = vec![pump(Stream::Stdout, self.output)];
        if let Some(errors) = self.errors {
            pumps.push(pump(Stream::Stderr, errors));
        }
        // A terminal that nobody types at stays open.
        let feeds = self.input.is_some() || !self.terminal;
        let input = feeds.then(|| Input::pump(process.clone(), self.input, self.terminal));
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
        if let Some(Input { pump, stop }) = &self.input {
            pump.abort();
            // The thread that waits is not aborted, and would take from a terminal what is typed for others then.
            if let Some(stop) = stop {
                // There is room for one.
                let _ = rustix::io::write(stop, &1_u64.to_ne_bytes());
            }
        }
    }
}

impl Input {
    fn pump(process: Process, input: Option<OwnedFd>, terminal: bool) -> Self {
        // Without one, when too many files are open, a thread that waits does so until something comes.
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok().map(Arc::new);
        let input = input.map(|input| Source { input: input.into(), stop: stop.clone() });
        Self { pump: tokio::spawn(pump_in(process, input, terminal)), stop }
    }
}

/// What is read until it ends, or until an eventfd(2) says that reading is to end.
#[derive(Clone)]
struct Source {
    input: Arc<OwnedFd>,
    stop: Option<Arc<OwnedFd>>,
}

impl Source {
    /// Waits for what comes next; nothing at the end.
    fn read(&self) -> io::Result<Vec<u8>> {
        if let Some(stop) = &self.stop {
            let mut both = [PollFd::new(&self.input, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            retry_on_intr(|| poll(&mut both, None))?;
            if !both[1].revents().is_empty() {
                return Ok(Vec::new());
            }
        }
        read_some(self.input.as_fd())
    }
}

async fn pump_out(process: Process, stream: Stream, to: Arc<OwnedFd>) -> Result<(), Failure> {
    let mut first = stream == Stream::Stdout;
    let mut broken = None;
    loop {
        let data = process.read(stream, MOST).await?;
        if data.is_empty() {
            return broken.map_or(Ok(()), Err);
        }
        if std::mem::take(&mut first) {
            tracing::info!(milestone = "first output", "the command wrote something");
        }
        if broken.is_some() {
            continue;
        }
        let out = to.clone();
        let written = blocking(move || write_all(out.as_fd(), &data)).await;
        if let Err(error) = written {
            // A local command would die of SIGPIPE at its next write, or of the error. What it still
            // writes is read all the same, or it could not end.
            let killed = process.signal(Signal::KILL).await;
            killed.unwrap_or_else(|error| tracing::warn!(cause = %error.cause, "could not end the command"));
            if error.kind() == io::ErrorKind::BrokenPipe {
                return discard(&process, stream).await;
            }
            broken = Some(Failure::step(format!("write to {stream:?}").to_lowercase(), error));
        }
    }
}

/// Reads an output to its end; nobody is there to see it.
async fn discard(process: &Process, stream: Stream) -> Result<(), Failure> {
    while !process.read(stream, MOST).await?.is_empty() {}
    Ok(())
}

async fn pump_in(process: Process, input: Option<Source>, terminal: bool) {
    match feed(&process, input, terminal).await {
        Ok(()) => {}
        // It reads no more, or has ended: what is left was not for it.
        Err(OperationError { cause: Cause::Agent(AgentError::StreamClosed), .. }) => {}
        Err(error) => tracing::debug!(cause = %error.cause, "the input was not passed on to its end"),
    }
}

async fn feed(process: &Process, input: Option<Source>, terminal: bool) -> Result<(), OperationError> {
    if let Some(input) = input {
        pass_input(process, input).await?;
    }
    if terminal {
        // Nothing else ends the input of a terminal, which is an output as well.
        write_stdin(process, vec![END_OF_INPUT]).await?;
    }
    process.close_stdin().await
}

async fn pass_input(process: &Process, input: Source) -> Result<(), OperationError> {
    loop {
        let from = input.clone();
        let data = blocking(move || from.read()).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the standard input cannot be read to its end");
            Vec::new()
        });
        if data.is_empty() {
            return Ok(());
        }
        write_stdin(process, data).await?;
    }
}

async fn write_stdin(process: &Process, mut data: Vec<u8>) -> Result<(), OperationError> {
    while !data.is_empty() {
        let taken = process.write_stdin(data.clone()).await?;
        // An agent that takes nothing, or more than there is, is not waited for again.
        data.drain(..if taken == 0 { data.len() } else { taken.min(data.len()) });
    }
    Ok(())
}

/// Runs on a thread that may block: the streams are shared with whoever started this process, so they
/// cannot be made non-blocking, and may be so already.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn read_some(from: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; CHUNK];
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_wait_for_input_ends_when_it_is_to_and_takes_nothing() {
        let (mut input, mut typed) = io::pipe().unwrap();
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let source = Source { input: Arc::new(input.try_clone().unwrap().into()), stop: Some(stop.clone()) };
        typed.write_all(b"one").unwrap();
        assert_eq!(source.read().unwrap(), b"one");
        let waiting = std::thread::spawn(move || source.read().unwrap());
        rustix::io::write(&stop, &1_u64.to_ne_bytes()).unwrap();
        assert_eq!(waiting.join().unwrap(), b"");
        typed.write_all(b"two").unwrap();
        drop(typed);
        let mut left = String::new();
        input.read_to_string(&mut left).unwrap();
        assert_eq!(left, "two", "for whoever reads next");
    }
}
