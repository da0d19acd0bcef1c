//! A process's standard streams: pipes, or a terminal.
//!
//! The kernel's pipe is the only buffer. A process that writes faster than the host reads blocks; the
//! agent holds no more than what one request asks for.

use crate::reaper::{self, Exit};
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::write;
use rustix::buffer::spare_capacity;
use rustix::io::{ioctl_fionread, read};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

/// What the kernel holds of standard output, in bytes: as much as one answer carries, so that the process
/// goes on while an answer travels. Pages are taken only for what is in there.
const PIPE_SIZE: i32 = 1 << 20;

/// The least room for one read, in bytes. Of a terminal, the kernel gives no more at once.
const LEAST_ROOM: usize = 4096;

/// The host's ends of a process's streams.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: Stdin,
    pub(crate) stdout: Output,
    /// A terminal has no stderr of its own.
    pub(crate) stderr: Option<Output>,
    terminal: Option<OwnedFd>,
}

impl Streams {
    /// Three pipes, and the process's ends of them.
    pub(crate) fn pipes() -> std::io::Result<(Self, [OwnedFd; 3])> {
        let (stdin, our_stdin) = std::io::pipe()?;
        let (our_stdout, stdout) = std::io::pipe()?;
        let (our_stderr, stderr) = std::io::pipe()?;
        fcntl(&our_stdout, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE))?;
        let streams = Self {
            stdin: Stdin::new(our_stdin.into(), true)?,
            stdout: Output::new(our_stdout.into())?,
            stderr: Some(Output::new(our_stderr.into())?),
            terminal: None,
        };
        Ok((streams, [stdin.into(), stdout.into(), stderr.into()]))
    }

    /// The terminal whose controlling side is `master`.
    pub(crate) fn terminal(master: OwnedFd) -> std::io::Result<Self> {
        Ok(Self {
            stdin: Stdin::new(master.try_clone()?, false)?,
            stdout: Output::new(master.try_clone()?)?,
            stderr: None,
            terminal: Some(master),
        })
    }

    /// Sets the size of the terminal; `ENOTTY` when there is none.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> Result<(), Errno> {
        let terminal = self.terminal.as_ref().ok_or(Errno::ENOTTY)?;
        sys::set_window_size(terminal.as_fd(), rows, columns)
    }

    /// Whether the host has read both streams to their end.
    pub(crate) fn are_drained(&self) -> bool {
        self.stdout.is_drained() && self.stderr.as_ref().is_none_or(Output::is_drained)
    }
}

/// A stream that the host reads.
#[derive(Debug)]
pub(crate) struct Output {
    file: AsyncFd<OwnedFd>,
    drained: AtomicBool,
}

impl Output {
    fn new(descriptor: OwnedFd) -> std::io::Result<Self> {
        Ok(Self { file: non_blocking(descriptor, Interest::READABLE)?, drained: AtomicBool::new(false) })
    }

    /// Appends the next bytes to `bytes`, at most `most`; none at the end of the stream, which is where nothing is left in
    /// it once `exit` tells that the process has ended: a child that it left behind may hold it open for ever, and conmon,
    /// and Kata's agent, do not wait for that either. Room is made for what is there, once it is there, and is not written
    /// to before: every byte is touched once.
    ///
    /// # Cancel safety
    /// Bytes are taken from the stream only by a call that returns them.
    pub(crate) async fn read(&self, bytes: &mut Vec<u8>, most: usize, exit: &Exit) -> std::io::Result<()> {
        let mut exit = exit.clone();
        let mut take = |file: &OwnedFd| {
            let there = ioctl_fionread(file).ok().and_then(|length| usize::try_from(length).ok());
            let room = there.unwrap_or_default().max(LEAST_ROOM).min(most);
            // No more than that: who reads is not to be given more than was asked for.
            bytes.reserve_exact(room);
            match read(file, spare_capacity(bytes)) {
                // The other side of a terminal was closed by its last user (pty(7)).
                Err(rustix::io::Errno::IO) => Ok(0),
                result => Ok(result?),
            }
        };
        let next = tokio::select! {
            biased;
            length = self.file.async_io(Interest::READABLE, &mut take) => Some(length),
            _ = reaper::wait(&mut exit) => None,
        };
        // What it wrote last may have come in between.
        let length = match next.unwrap_or_else(|| take(self.file.get_ref())) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            length => length?,
        };
        if length == 0 {
            self.drained.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }
}

/// The stream that the host writes. A task of its own keeps the requests in order.
#[derive(Debug)]
pub(crate) struct Stdin(mpsc::Sender<Input>);

#[derive(Debug)]
enum Input {
    Bytes(Vec<u8>, oneshot::Sender<Result<(), Errno>>),
    Close,
}

impl Stdin {
    fn new(descriptor: OwnedFd, closes: bool) -> std::io::Result<Self> {
        let file = non_blocking(descriptor, Interest::WRITABLE)?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(serve_input(file, receiver, closes));
        Ok(Self(sender))
    }

    /// Writes all `bytes`, after what was written before; waits while the process does not read.
    ///
    /// # Errors
    /// `EPIPE` when stdin was closed, by the host or by the process.
    ///
    /// # Cancel safety
    /// Once taken over, the bytes are written even if the future is dropped.
    pub(crate) async fn write(&self, bytes: Vec<u8>) -> Result<(), Errno> {
        let (done, written) = oneshot::channel();
        self.0.send(Input::Bytes(bytes, done)).await.map_err(|_| Errno::EPIPE)?;
        written.await.unwrap_or(Err(Errno::EPIPE))
    }

    /// Closes stdin after what was written before: the process reads the end of the stream. Closing
    /// what is closed is no error. A terminal has no end of input, and stays open.
    pub(crate) async fn close(&self) {
        let _ = self.0.send(Input::Close).await;
    }
}

async fn serve_input(file: AsyncFd<OwnedFd>, mut requests: mpsc::Receiver<Input>, closes: bool) {
    while let Some(request) = requests.recv().await {
        match request {
            Input::Bytes(bytes, done) => {
                let result = write_all(&file, &bytes).await;
                let _ = done.send(result);
            }
            Input::Close if closes => return,
            Input::Close => {}
        }
    }
}

async fn write_all(file: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let written = file.async_io(Interest::WRITABLE, |file| Ok(write(file, bytes)?)).await;
        let length = written.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        bytes = &bytes[length..];
    }
    Ok(())
}

fn non_blocking(descriptor: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    fcntl(&descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    sys::watch_descriptor(descriptor, interest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::pin::pin;
    use std::sync::Arc;
    use tokio::sync::watch;

    async fn next(output: &Output, most: usize) -> Vec<u8> {
        let (_process, exit) = watch::channel(None);
        let mut bytes = Vec::new();
        output.read(&mut bytes, most, &exit).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_process_and_not_with_what_that_left_behind() {
        let (streams, [_, stdout, _held]) = Streams::pipes().unwrap();
        let (process, exit) = watch::channel(None);
        let mut stdout = File::from(stdout);
        let mut bytes = Vec::new();
        {
            let mut reading = pin!(streams.stdout.read(&mut bytes, 100, &exit));
            assert!(futures::poll!(&mut reading).is_pending(), "it runs, and has written nothing");
            stdout.write_all(b"last words").unwrap();
            process.send_replace(Some(0));
            reading.await.unwrap();
        }
        assert_eq!(bytes, b"last words");
        streams.stdout.read(&mut bytes, 100, &exit).await.unwrap();
        streams.stderr.as_ref().unwrap().read(&mut bytes, 100, &exit).await.unwrap();
        assert_eq!(bytes, b"last words", "a child holds both open");
        assert!(streams.are_drained());
    }

    #[tokio::test]
    async fn a_read_takes_what_is_there_and_never_more_than_asked() {
        let (streams, [_, stdout, _]) = Streams::pipes().unwrap();
        let mut stdout = File::from(stdout);
        stdout.write_all(&[7; 100_000]).unwrap();
        let mut bytes = vec![1];
        let (_process, exit) = watch::channel(None);
        streams.stdout.read(&mut bytes, 10, &exit).await.unwrap();
        assert_eq!(bytes, [1, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
        assert_eq!(next(&streams.stdout, usize::MAX).await, vec![7; 99_990]);
        // As much as one answer carries waits in the kernel.
        stdout.write_all(&[7; 1 << 20]).unwrap();
        assert_eq!(next(&streams.stdout, 1 << 20).await.len(), 1 << 20);
    }

    #[tokio::test]
    async fn ten_mebibytes_pass_whole_and_half_close_ends_the_stream() {
        let (streams, [stdin, stdout, stderr]) = Streams::pipes().unwrap();
        let copier = std::thread::spawn(move || {
            std::io::copy(&mut File::from(stdin), &mut File::from(stdout)).unwrap();
            drop(stderr);
        });
        let streams = Arc::new(streams);
        let writer = Arc::clone(&streams);
        let sent: Vec<u8> = (0..10_485_760u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let copy = sent.clone();
        let writing = tokio::spawn(async move {
            for chunk in copy.chunks(100_000) {
                writer.stdin.write(chunk.to_vec()).await.unwrap();
            }
            writer.stdin.close().await;
            writer.stdin.close().await;
            writer.stdin.write(vec![1]).await
        });
        let mut received = Vec::new();
        loop {
            let bytes = next(&streams.stdout, 65_536).await;
            if bytes.is_empty() {
                break;
            }
            received.extend(bytes);
        }
        assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
        assert_eq!(writing.await.unwrap(), Err(Errno::EPIPE));
        assert!(!streams.are_drained());
        assert!(next(streams.stderr.as_ref().unwrap(), 1).await.is_empty());
        assert!(streams.are_drained());
        copier.join().unwrap();
        assert_eq!(streams.resize(1, 1), Err(Errno::ENOTTY));
    }

    #[tokio::test]
    async fn a_terminal_carries_both_ways_and_ends_with_its_last_user() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let streams = Streams::terminal(pty.master).unwrap();
        streams.resize(24, 80).unwrap();
        let ours = File::from(pty.slave);
        streams.stdin.write(b"hi\n".to_vec()).await.unwrap();
        streams.stdin.close().await;
        assert_eq!(next(&streams.stdout, 100).await, b"hi\r\n");
        drop(ours);
        assert!(next(&streams.stdout, 100).await.is_empty());
        assert!(streams.are_drained());
    }

    #[tokio::test]
    async fn a_terminal_ends_with_its_process_too() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let streams = Streams::terminal(pty.master).unwrap();
        let (process, exit) = watch::channel(None);
        let mut bytes = Vec::new();
        File::from(pty.slave.try_clone().unwrap()).write_all(b"last words").unwrap();
        process.send_replace(Some(0));
        for _ in 0..2 {
            streams.stdout.read(&mut bytes, 100, &exit).await.unwrap();
        }
        assert_eq!(bytes, b"last words");
        assert!(streams.are_drained(), "the other side is open");
        drop(pty.slave);
    }
}
