//! The terminal of this process as that of a container: its owner's pseudoterminal comes here, and what is typed goes there.

use std::fs::{DirBuilder, File, remove_dir_all};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread::JoinHandle;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{tcgetwinsize, tcsetwinsize};

use crate::failure::Failure;
use crate::terminal::RawMode;

/// Where an owner hands its terminal over. The socket goes when this is dropped.
pub(super) struct Handover {
    directory: PathBuf,
    listener: UnixListener,
}

impl Handover {
    pub(super) fn listen() -> Result<Self, Failure> {
        let failed = |error| Failure::step("make a socket for the terminal", error);
        let name = format!("vc-run-{:016x}", RandomState::new().hash_one(std::process::id()));
        let directory = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&directory).map_err(failed)?;
        // An owner that has the container has connected before it said so: a missing one is an error, and no wait.
        let listening = UnixListener::bind(socket(&directory))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        match listening {
            Ok(listener) => Ok(Self { directory, listener }),
            Err(error) => {
                let _ = remove_dir_all(&directory);
                Err(failed(error))
            }
        }
    }

    /// What an owner is to be told.
    pub(super) fn socket(&self) -> PathBuf {
        socket(&self.directory)
    }

    /// Takes the terminal of an owner that has handed it over.
    pub(super) fn take(self) -> Result<OwnTerminal, Failure> {
        let taken = self.master().and_then(OwnTerminal::over);
        taken.map_err(|error| Failure::step("take the container's terminal", error))
    }

    fn master(&self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 128];
        recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut files = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        files.next().and_then(|mut files| files.next()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if let Err(error) = remove_dir_all(&self.directory) {
            tracing::warn!(%error, "{} is left", self.directory.display());
        }
    }
}

fn socket(directory: &std::path::Path) -> PathBuf {
    directory.join("console")
}

/// A container's terminal, joined to the standard input and output.
pub(super) struct OwnTerminal {
    master: File,
    output: JoinHandle<io::Result<u64>>,
    /// Dropped last: until then what comes is not edited.
    _raw: Option<RawMode>,
}

impl OwnTerminal {
    fn over(master: OwnedFd) -> io::Result<Self> {
        let master = File::from(master);
        let own = |end: rustix::fd::BorrowedFd<'_>| end.try_clone_to_owned().map(File::from);
        let (mut typed, mut shown) = (own(stdin())?, own(stdout())?);
        let (mut input, mut from) = (master.try_clone()?, master.try_clone()?);
        let raw = RawMode::enter();
        // Ends with this process: nobody waits for what is typed after the container's end.
        std::thread::spawn(move || io::copy(&mut typed, &mut input));
        let output = std::thread::spawn(move || io::copy(&mut from, &mut shown));
        let terminal = Self { master, output, _raw: raw };
        terminal.pass_size();
        Ok(terminal)
    }

    /// Gives it the size of the one here, if this is one.
    pub(super) fn pass_size(&self) {
        let Ok(size) = tcgetwinsize(stdin()) else { return };
        if let Err(error) = tcsetwinsize(self.master.as_fd(), size) {
            tracing::warn!(%error, "the size of the terminal was not passed on");
        }
    }

    /// Shows the rest, after the owner's end.
    pub(super) fn drain(self) {
        // A pseudoterminal without its other end fails when all of it was read (pty(7)).
        let _ = self.output.join();
    }
}
