//! The standard streams: what comes in here goes to the command, what it writes comes out here.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::{JoinError, JoinHandle};
use vc_agent::{AgentError, Signal};
use vc_container::{Cause, Container, OperationError, Stream};

use crate::failure::Failure;

/// How much is passed on at a time, in bytes.
const CHUNK: u32 = 64 << 10;

/// Which streams there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    pub(crate) terminal: bool,
    pub(crate) interactive: bool,
}

/// The command's outputs on their way here.
pub(crate) struct Output {
    pumps: Vec<JoinHandle<Result<(), OperationError>>>,
    input: Option<JoinHandle<()>>,
}

impl Streams {
    /// Starts to pass data on, in both directions.
    pub(crate) fn connect(self, container: &Container) -> Output {
        let mut pumps = vec![tokio::spawn(pump_out(container.clone(), Stream::Stdout, tokio::io::stdout()))];
        if !self.terminal {
            pumps.push(tokio::spawn(pump_out(container.clone(), Stream::Stderr, tokio::io::stderr())));
        }
        let input = match (self.interactive, self.terminal) {
            (true, _) => Some(tokio::spawn(pump_in(container.clone(), tokio::io::stdin()))),
            (false, false) => Some(tokio::spawn(pump_in(container.clone(), tokio::io::empty()))),
            // A terminal that nobody types at stays open.
            (false, true) => None,
        };
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

async fn pump_out(
    container: Container,
    stream: Stream,
    mut to: impl AsyncWrite + Unpin,
) -> Result<(), OperationError> {
    let mut first = stream == Stream::Stdout;
    let mut wanted = true;
    loop {
        let data = container.read(stream, CHUNK).await?;
        if data.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut first) {
            tracing::info!(milestone = "first output", "the command wrote something");
        }
        if wanted && write(&mut to, &data).await.is_err() {
            // Nobody reads here any more. A local command would die of SIGPIPE at its next write.
            wanted = false;
            let killed = container.signal(Signal::KILL).await;
            killed.unwrap_or_else(|error| tracing::warn!(%error, "could not end the command"));
        }
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> std::io::Result<()> {
    to.write_all(data).await?;
    to.flush().await
}

async fn pump_in(container: Container, from: impl AsyncRead + Unpin) {
    match feed(&container, from).await {
        Ok(()) => {}
        // It reads no more, or has ended: what is left was not for it.
        Err(OperationError { cause: Cause::Agent(AgentError::StreamClosed), .. }) => {}
        Err(error) => tracing::debug!(%error, "the input was not passed on to its end"),
    }
}

async fn feed(container: &Container, mut from: impl AsyncRead + Unpin) -> Result<(), OperationError> {
    let mut buffer = vec![0; CHUNK as usize];
    // An error here is an end, too: nothing more will come.
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let taken = container.write_stdin(rest.to_vec()).await?;
            rest = &rest[taken.min(rest.len())..];
        }
    }
    container.close_stdin().await
}
