//! virtiofsd: which one there is, its process, and its end.

mod end;
mod program;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::watch;
use vc_types::{Deadline, HostPath, ProcessIdentity};

use crate::sys;

pub use end::ServerEnd;
pub use program::find_virtiofsd;
use program::{arguments, flavour};

/// The descriptor of the socket in the server.
const SOCKET_FD: i32 = 3;

/// What the guest may keep of what it has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// For a second, and as long as a file is open: fast, and a change of the host's may be seen late.
    #[default]
    Auto,
    /// Nothing: each change of the host's is seen at once.
    Never,
    /// Everything: nobody else may change the files.
    Always,
}

/// How a directory is served.
#[derive(Clone, Debug)]
pub struct VirtiofsdConfig {
    /// The program; [`find_virtiofsd`] if none is given.
    pub program: Option<PathBuf>,
    /// What the guest may keep.
    pub cache: Cache,
    /// Whether it ends with this process, however that ends.
    pub die_with_parent: bool,
}

impl Default for VirtiofsdConfig {
    fn default() -> Self {
        Self { program: None, cache: Cache::Auto, die_with_parent: true }
    }
}

/// Why nothing serves the directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// There is no program.
    #[error(
        "no virtiofsd is in PATH, /usr/libexec, /usr/lib or /usr/lib/qemu; install virtiofsd, or Debian 12's qemu-system-common"
    )]
    NotFound,
    /// The program does not say what it is.
    #[error("{program:?} does not tell its version as a virtiofsd does: {said:?}")]
    Unknown {
        /// The program.
        program: PathBuf,
        /// What it said.
        said: String,
    },
    /// The program cannot be run.
    #[error("cannot run {program:?}")]
    Run {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot make the socket {socket}")]
    Socket {
        /// Where.
        socket: HostPath,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody can tell whether it is there.
    #[error("cannot find the virtiofsd of another process again")]
    Adopt(#[source] io::Error),
    /// It did not end.
    #[error("virtiofsd did not end in time although it was killed")]
    Stays,
}

/// A virtiofsd that serves a directory. It is killed when this is dropped, unless it was let go.
///
/// It runs as root in its own mount, process and network namespaces (its sandbox `namespace`), with the directory
/// as its root: nothing else of the host can be reached through it, whatever the guest sends. It ends by itself when
/// the hypervisor that is connected to it ends.
#[derive(Debug)]
pub struct Virtiofsd {
    socket: HostPath,
    pid: u32,
    is_let_go: AtomicBool,
    /// Names this very process, also after its number was given to another; none if it had ended before.
    handle: Option<OwnedFd>,
    end: watch::Receiver<Option<ServerEnd>>,
}

impl Virtiofsd {
    /// Serves `directory` at `socket`, which must not exist. It can be connected to at once: the socket is made
    /// here, and handed to the server open.
    ///
    /// # Errors
    /// [`ServerError`]; then nothing is left.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn start(
        config: &VirtiofsdConfig,
        directory: &HostPath,
        socket: &HostPath,
        deadline: Deadline,
    ) -> Result<Self, ServerError> {
        let program = config.program.clone().map_or_else(find_virtiofsd, Ok)?;
        let flavour = flavour(&program, deadline).await?;
        let listening = Socket::make(socket)?;
        let mut command = Command::new(&program);
        command.args(arguments(flavour, config.cache, directory));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.kill_on_drop(config.die_with_parent);
        // Ctrl-C at a terminal is for whoever owns the machine.
        command.process_group(0);
        let failed = |source| ServerError::Run { program: program.clone(), source };
        let fd = FdMapping { parent_fd: listening.listener, child_fd: SOCKET_FD };
        command.fd_mappings(vec![fd]).expect("one descriptor collides with no other");
        if config.die_with_parent {
            sys::kill_on_parent_death(&mut command);
        }
        let spawned = command.spawn().and_then(|child| {
            let pid = child.id().ok_or(io::ErrorKind::NotFound)?;
            Ok((pid, sys::open_process(pid)?, child))
        });
        let (pid, handle, child) = match spawned {
            Ok(spawned) => spawned,
            Err(error) => {
                remove_socket(socket);
                return Err(failed(error));
            }
        };
        let (sender, end) = watch::channel(None);
        tokio::spawn(end::follow(child, sender));
        let is_let_go = AtomicBool::new(false);
        Ok(Self { socket: socket.clone(), pid, is_let_go, handle: Some(handle), end })
    }

    /// Takes over a server at `socket` that another process started to outlive it
    /// ([`VirtiofsdConfig::die_with_parent`]). One that has ended is taken over as that.
    ///
    /// # Errors
    /// [`ServerError::Adopt`] when the system cannot tell whether that process is there.
    pub fn adopt(identity: ProcessIdentity, socket: &HostPath) -> Result<Self, ServerError> {
        let handle = match sys::open_process(identity.pid) {
            // Behind the handle, whose process has had the number since before this look.
            Ok(handle) => (ProcessIdentity::of(identity.pid) == Some(identity)).then_some(handle),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => None,
            Err(error) => return Err(ServerError::Adopt(error)),
        };
        let (sender, end) = watch::channel(None);
        match &handle {
            Some(handle) => {
                let watched = handle.try_clone().map_err(ServerError::Adopt)?;
                tokio::spawn(end::follow_other(watched, sender));
            }
            None => drop(sender.send_replace(Some(ServerEnd::UNKNOWN))),
        }
        let is_let_go = AtomicBool::new(false);
        Ok(Self { socket: socket.clone(), pid: identity.pid, is_let_go, handle, end })
    }

    /// Which process it is, for [`Virtiofsd::adopt`]; `None` when it has ended.
    pub fn identity(&self) -> Option<ProcessIdentity> {
        ProcessIdentity::of(self.pid).filter(|_| self.ended().is_none())
    }

    /// Lets it run on when this value is dropped.
    pub fn let_go(&self) {
        self.is_let_go.store(true, Ordering::Relaxed);
    }

    /// Ends a server at `socket` that nobody has ever connected to and nobody knows: it serves one connection, and
    /// ends with that. Removes the socket. If there is neither, all is fine.
    pub async fn end_unknown(socket: &HostPath, deadline: Deadline) {
        let served = async {
            let mut connection = UnixStream::connect(socket).await?;
            connection.shutdown().await?;
            // Until it ends.
            connection.read_to_end(&mut Vec::new()).await
        };
        // Refused when nobody listens any more. One that hears the end of its connection and stays is out of reach.
        let _ = tokio::time::timeout(deadline.remaining(), served).await;
        remove_socket(socket);
    }

    /// Where the hypervisor connects to.
    pub fn socket(&self) -> &HostPath {
        &self.socket
    }

    /// Resolves when it has ended, for whatever reason; at once if it already has.
    ///
    /// # Cancel safety
    /// May be dropped and called again at any time, and by several callers.
    pub async fn exited(&self) -> ServerEnd {
        self.watch_end().await
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ServerEnd> {
        self.end.borrow().clone()
    }

    /// As [`Virtiofsd::exited`], without holding on to the server.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub fn watch_end(&self) -> impl Future<Output = ServerEnd> + Send + use<> {
        let mut end = self.end.clone();
        async move {
            let told = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
            told.unwrap_or(ServerEnd::UNKNOWN)
        }
    }

    /// Ends it and removes its socket. One that has ended is fine.
    ///
    /// # Errors
    /// [`ServerError::Stays`] when `deadline` passes first. May be called again.
    pub async fn stop(&self, deadline: Deadline) -> Result<ServerEnd, ServerError> {
        self.kill();
        remove_socket(&self.socket);
        tokio::time::timeout(deadline.remaining(), self.exited()).await.map_err(|_| ServerError::Stays)
    }

    fn kill(&self) {
        if let Some(handle) = &self.handle {
            // The only error is that it has ended, which is what is wanted.
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }
}

impl Drop for Virtiofsd {
    fn drop(&mut self) {
        if !*self.is_let_go.get_mut() {
            self.kill();
            remove_socket(&self.socket);
        }
    }
}

/// A socket that listens, and is handed on.
struct Socket {
    listener: OwnedFd,
}

impl Socket {
    fn make(path: &HostPath) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Socket { socket: path.clone(), source };
        let listener = UnixListener::bind(path.as_path()).map_err(failed)?;
        Ok(Self { listener: listener.into() })
    }
}

fn remove_socket(socket: &HostPath) {
    // It may be gone already; there is nothing else by that name, for it was made here.
    let _ = std::fs::remove_file(socket);
}
