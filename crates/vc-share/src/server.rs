//! The program that serves a directory: which one there is, its process, and its end.

mod end;
mod nydusd;
mod program;
mod virtiofsd;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Signal, pidfd_send_signal};
use tokio::process::Command;
use tokio::sync::watch;
use vc_types::{Deadline, HostPath, ProcessIdentity};

use crate::nydus::{NydusApi, NydusError};
use crate::sys;

pub use end::ServerEnd;
pub use program::{find_nydusd, find_virtiofsd};

/// Which program serves a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerKind {
    /// virtiofsd: the directory, and nothing else.
    #[default]
    Virtiofsd,
    /// nydusd: the directory as `containers`, and beside it the RAFS images that it is asked to mount ([`NydusApi`]).
    Nydusd,
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Virtiofsd => "virtiofsd",
            Self::Nydusd => "nydusd",
        })
    }
}

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
pub struct ServerConfig {
    /// By what.
    pub kind: ServerKind,
    /// The program; what [`find_virtiofsd`] or [`find_nydusd`] finds if none is given.
    pub program: Option<PathBuf>,
    /// What the guest may keep. nydusd cannot be told, and lets it keep what virtiofsd does by [`Cache::Auto`].
    pub cache: Cache,
    /// Whether it ends with this process, however that ends.
    ///
    /// It ends already with the thread that polled [`Server::start`] (prctl(2), `PR_SET_PDEATHSIG`). So start it on a
    /// thread that lasts as long as it is needed: the main thread, or a worker of the tokio runtime; not within
    /// `spawn_blocking`, nor on a thread of one's own that blocks on the start and ends.
    pub die_with_parent: bool,
}

impl ServerConfig {
    /// A server of this kind that ends with this process. Every field may be changed.
    pub const fn new(kind: ServerKind) -> Self {
        Self { kind, program: None, cache: Cache::Auto, die_with_parent: true }
    }
}

/// Why nothing serves the directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// There is no virtiofsd.
    #[error(
        "no virtiofsd is in PATH, /usr/libexec, /usr/lib or /usr/lib/qemu; install virtiofsd, or Debian 12's qemu-system-common"
    )]
    NotFound,
    /// There is no nydusd.
    #[error("no nydusd is in PATH; install one that has `nydusd virtiofs`, or say where it is")]
    NoNydusd,
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
    /// It ended before it served anything.
    #[error("{0}")]
    Ended(ServerEnd),
    /// It does not serve the directory.
    #[error("nydusd does not serve the directory")]
    Nydus(#[from] NydusError),
    /// Nobody can tell whether it is there.
    #[error("cannot find the {0} of another process again")]
    Adopt(ServerKind, #[source] io::Error),
    /// It did not end.
    #[error("{0} did not end in time although it was killed")]
    Stays(ServerKind),
}

/// A program that serves a directory. It is killed when this is dropped, unless it was let go.
///
/// **virtiofsd** runs as root in its own mount, process and network namespaces (its sandbox `namespace`), with the
/// directory as its root: nothing else of the host can be reached through it, whatever the guest sends. It ends by
/// itself when the hypervisor that is connected to it ends.
///
/// **nydusd** has no sandbox of its own, and needs the host's files and network, where the images are. It runs as root
/// with no more capabilities than serving files takes, and gets none by executing anything. It ends when it is ended.
#[derive(Debug)]
pub struct Server {
    kind: ServerKind,
    socket: HostPath,
    pid: u32,
    is_let_go: AtomicBool,
    /// Whether its sockets were removed: whatever has their names since then is the next server's.
    is_over: AtomicBool,
    /// Names this very process, also after its number was given to another; none if it had ended before.
    handle: Option<OwnedFd>,
    end: watch::Receiver<Option<ServerEnd>>,
    nydus: Option<NydusApi>,
}

impl Server {
    /// Serves `directory` at `socket`, which must not exist. It can be connected to at once. nydusd is asked things
    /// at a second socket beside it, and works in the directory of both, which must be nobody else's.
    ///
    /// # Errors
    /// [`ServerError`]; then nothing is left.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn start(
        config: &ServerConfig,
        directory: &HostPath,
        socket: &HostPath,
        deadline: Deadline,
    ) -> Result<Self, ServerError> {
        match config.kind {
            ServerKind::Virtiofsd => virtiofsd::start(config, directory, socket, deadline).await,
            ServerKind::Nydusd => nydusd::start(config, directory, socket, deadline).await,
        }
    }

    /// Runs the program. When that fails, its sockets are gone.
    fn spawn(config: &ServerConfig, mut command: Command, socket: &HostPath) -> Result<Self, ServerError> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.kill_on_drop(config.die_with_parent);
        // Ctrl-C at a terminal is for whoever owns the machine.
        command.process_group(0);
        if config.die_with_parent {
            sys::kill_on_parent_death(&mut command);
        }
        let program = Path::new(command.as_std().get_program()).to_owned();
        let spawned = command.spawn().and_then(|child| {
            let pid = child.id().ok_or(io::ErrorKind::NotFound)?;
            Ok((pid, sys::open_process(pid)?, child))
        });
        let (pid, handle, child) = match spawned {
            Ok(spawned) => spawned,
            Err(source) => {
                remove_sockets(config.kind, socket);
                return Err(ServerError::Run { program, source });
            }
        };
        let (sender, end) = watch::channel(None);
        tokio::spawn(end::follow(child, config.kind, sender));
        Ok(Self::of(config.kind, socket, (pid, Some(handle)), end))
    }

    fn of(
        kind: ServerKind,
        socket: &HostPath,
        (pid, handle): (u32, Option<OwnedFd>),
        end: watch::Receiver<Option<ServerEnd>>,
    ) -> Self {
        let nydus = (kind == ServerKind::Nydusd).then(|| NydusApi::new(nydusd::api_socket(socket)));
        let no = || AtomicBool::new(false);
        Self { kind, socket: socket.clone(), pid, is_let_go: no(), is_over: no(), handle, end, nydus }
    }

    /// Takes over a server at `socket` that another process started to outlive it
    /// ([`ServerConfig::die_with_parent`]). One that has ended is taken over as that.
    ///
    /// # Errors
    /// [`ServerError::Adopt`] when the system cannot tell whether that process is there.
    pub fn adopt(
        kind: ServerKind,
        identity: ProcessIdentity,
        socket: &HostPath,
    ) -> Result<Self, ServerError> {
        let failed = |error| ServerError::Adopt(kind, error);
        let handle = match sys::open_process(identity.pid) {
            // Behind the handle, whose process has had the number since before this look.
            Ok(handle) => (ProcessIdentity::of(identity.pid) == Some(identity)).then_some(handle),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => None,
            Err(error) => return Err(failed(error)),
        };
        let (sender, end) = watch::channel(None);
        match &handle {
            Some(handle) => {
                let watched = handle.try_clone().map_err(failed)?;
                tokio::spawn(end::follow_other(watched, kind, sender));
            }
            None => drop(sender.send_replace(Some(ServerEnd::unknown(kind)))),
        }
        Ok(Self::of(kind, socket, (identity.pid, handle), end))
    }

    /// What it is asked to do while it serves; only nydusd can be.
    pub fn nydus(&self) -> Option<&NydusApi> {
        self.nydus.as_ref()
    }

    /// Which process it is, for [`Server::adopt`]; `None` when it has ended.
    pub fn identity(&self) -> Option<ProcessIdentity> {
        ProcessIdentity::of(self.pid).filter(|_| self.ended().is_none())
    }

    /// Lets it run on when this value is dropped.
    pub fn let_go(&self) {
        self.is_let_go.store(true, Ordering::Relaxed);
    }

    /// Ends a server at `socket` that nobody has ever connected to and nobody knows, and removes its sockets. If there
    /// is neither, all is fine.
    pub async fn end_unknown(kind: ServerKind, socket: &HostPath, deadline: Deadline) {
        let ended = async {
            match kind {
                ServerKind::Virtiofsd => virtiofsd::end_unknown(socket).await,
                ServerKind::Nydusd => nydusd::end_unknown(socket).await,
            }
        };
        // One that is told to end and stays is out of reach.
        let _ = tokio::time::timeout(deadline.remaining(), ended).await;
        remove_sockets(kind, socket);
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

    /// As [`Server::exited`], without holding on to the server.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub fn watch_end(&self) -> impl Future<Output = ServerEnd> + Send + use<> {
        let (mut end, kind) = (self.end.clone(), self.kind);
        async move {
            let told = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
            told.unwrap_or(ServerEnd::unknown(kind))
        }
    }

    /// Ends it and removes its sockets. One that has ended is fine.
    ///
    /// # Errors
    /// [`ServerError::Stays`] when `deadline` passes first. May be called again.
    pub async fn stop(&self, deadline: Deadline) -> Result<ServerEnd, ServerError> {
        self.kill();
        let ended = tokio::time::timeout(deadline.remaining(), self.exited()).await;
        // Only now: it could make them again.
        if !self.is_over.swap(ended.is_ok(), Ordering::Relaxed) {
            remove_sockets(self.kind, &self.socket);
        }
        ended.map_err(|_| ServerError::Stays(self.kind))
    }

    fn kill(&self) {
        if let Some(handle) = &self.handle {
            // The only error is that it has ended, which is what is wanted.
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !*self.is_let_go.get_mut() {
            self.kill();
            if !*self.is_over.get_mut() {
                remove_sockets(self.kind, &self.socket);
            }
        }
    }
}

fn remove_sockets(kind: ServerKind, socket: &HostPath) {
    // They may be gone already; there is nothing else by their names, for they were made for the server.
    let _ = std::fs::remove_file(socket);
    if kind == ServerKind::Nydusd {
        let _ = std::fs::remove_file(nydusd::api_socket(socket));
    }
}
