//! The terminal of a container: a pseudoterminal whose master goes to whoever listens on `--console-socket`.
//!
//! The guest's terminal edits lines and makes signals of keys, so that the host's passes on bytes.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcgetwinsize, tcsetattr};
use vc_agent::TerminalSize;

use crate::failure::Failure;

/// How long the listener may take to accept the master.
const HANDOVER: Duration = Duration::from_secs(10);

/// The end of the pseudoterminal that stays here.
#[derive(Debug)]
pub(crate) struct Console(OwnedFd);

impl Console {
    /// Makes a pseudoterminal, makes it this process's controlling terminal, so that a change of its size is told
    /// (SIGWINCH) and its hangup too (SIGHUP), and sends its master to `socket`.
    pub(crate) fn hand_over(socket: &Path) -> Result<Self, Failure> {
        let step = || format!("send the terminal to {}", socket.display());
        Self::try_hand_over(socket).map_err(|error| Failure::step(step(), error))
    }

    fn try_hand_over(socket: &Path) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave =
            ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        let mut modes = tcgetattr(&slave)?;
        modes.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &modes)?;
        ioctl_tiocsctty(&slave)?;
        let name = ptsname(&master, Vec::new())?;
        let stream = UnixStream::connect(socket)?;
        stream.set_write_timeout(Some(HANDOVER))?;
        let files = [master.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)), "there is space for one");
        // runc sends the terminal's name along.
        sendmsg(&stream, &[io::IoSlice::new(name.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        Ok(Self(slave))
    }

    /// Another descriptor of it.
    pub(crate) fn end(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Its size, once somebody has given it one.
    pub(crate) fn size(&self) -> Option<TerminalSize> {
        let size = tcgetwinsize(&self.0).ok()?;
        let size = TerminalSize { rows: size.ws_row, columns: size.ws_col };
        (size.rows > 0 && size.columns > 0).then_some(size)
    }
}
