//! virtiofsd: which one there is, its process, and its end.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use vc_types::{Deadline, HostPath};

use crate::sys;

/// Where distributions put it: the Rust one, and last the one that came with QEMU before 8.0.
const PLACES: [&str; 3] = ["/usr/libexec/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/qemu/virtiofsd"];

/// The descriptor of the socket in the server.
const SOCKET_FD: i32 = 3;

/// How much of its standard error is kept, in bytes.
const STDERR_KEPT: usize = 4096;

/// Which virtiofsd it is: their options differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// The one in Rust (`gitlab.com/virtio-fs/virtiofsd`).
    Rust,
    /// The one in C, of QEMU 5.0 to 7.2.
    Qemu,
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
    /// It did not end.
    #[error("virtiofsd did not end in time although it was killed")]
    Stays,
}

/// How a server ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerEnd {
    /// Its status, if the system could tell.
    pub status: Option<ExitStatus>,
    /// The end of what it wrote to its standard error.
    pub said: String,
}

impl fmt::Display for ServerEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => write!(f, "virtiofsd ended with code {code}")?,
            Some((None, Some(signal))) => write!(f, "virtiofsd was ended by signal {signal}")?,
            _ => f.write_str("virtiofsd has ended")?,
        }
        let said: Vec<&str> = self.said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if said.is_empty() { Ok(()) } else { write!(f, ": {}", said.join("; ")) }
    }
}

/// The virtiofsd of this host: the first in `PATH`, or where distributions put it.
///
/// # Errors
/// [`ServerError::NotFound`].
pub fn find_virtiofsd() -> Result<PathBuf, ServerError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|directory| directory.join("virtiofsd"));
    let mut candidates = in_path.chain(PLACES.map(PathBuf::from));
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|stat| stat.is_file() && stat.permissions().mode() & 0o111 != 0)
    };
    candidates.find(is_program).ok_or(ServerError::NotFound)
}

/// A virtiofsd that serves a directory. It is killed when this is dropped.
///
/// It runs as root in its own mount, process and network namespaces (its sandbox `namespace`), with the directory
/// as its root: nothing else of the host can be reached through it, whatever the guest sends. It ends by itself when
/// the hypervisor that is connected to it ends.
#[derive(Debug)]
pub struct Virtiofsd {
    socket: HostPath,
    flavour: Flavour,
    /// Names this very process, also after its number was given to another.
    handle: OwnedFd,
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
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C at a terminal is for whoever owns the machine.
        command.process_group(0);
        let failed = |source| ServerError::Run { program: program.clone(), source };
        let fd = FdMapping { parent_fd: listening.listener, child_fd: SOCKET_FD };
        command.fd_mappings(vec![fd]).map_err(|error| failed(io::Error::other(error)))?;
        if config.die_with_parent {
            sys::kill_on_parent_death(&mut command);
        }
        let spawned = command.spawn().and_then(|child| Ok((open_handle(&child)?, child)));
        let (handle, child) = match spawned {
            Ok(spawned) => spawned,
            Err(error) => {
                remove_socket(socket);
                return Err(failed(error));
            }
        };
        let (sender, end) = watch::channel(None);
        tokio::spawn(follow(child, sender));
        Ok(Self { socket: socket.clone(), flavour, handle, end })
    }

    /// Where the hypervisor connects to.
    pub fn socket(&self) -> &HostPath {
        &self.socket
    }

    /// Which one it is.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// Resolves when it has ended, for whatever reason; at once if it already has.
    ///
    /// # Cancel safety
    /// May be dropped and called again at any time, and by several callers.
    pub async fn exited(&self) -> ServerEnd {
        let mut end = self.end.clone();
        let told = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        told.unwrap_or(ServerEnd { status: None, said: String::new() })
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
        // The only error is that it has ended, which is what is wanted.
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }
}

impl Drop for Virtiofsd {
    fn drop(&mut self) {
        self.kill();
        remove_socket(&self.socket);
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

fn arguments(flavour: Flavour, cache: Cache, directory: &HostPath) -> Vec<String> {
    let directory = directory.as_path().display();
    match flavour {
        Flavour::Rust => {
            let cache = match cache {
                Cache::Auto => "auto",
                Cache::Never => "never",
                Cache::Always => "always",
            };
            vec![
                format!("--fd={SOCKET_FD}"),
                format!("--shared-dir={directory}"),
                format!("--cache={cache}"),
                "--sandbox=namespace".to_owned(),
                "--log-level=warn".to_owned(),
            ]
        }
        Flavour::Qemu => {
            let cache = match cache {
                Cache::Auto => "auto",
                Cache::Never => "none",
                Cache::Always => "always",
            };
            // Commas end an option, and no path of ours has one.
            let options = format!("source={directory},cache={cache},sandbox=namespace,log_level=warn");
            vec!["-f".to_owned(), format!("--fd={SOCKET_FD}"), "-o".to_owned(), options]
        }
    }
}

/// Asks a program which virtiofsd it is.
async fn flavour(program: &Path, deadline: Deadline) -> Result<Flavour, ServerError> {
    let failed = |source| ServerError::Run { program: program.into(), source };
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(deadline.remaining(), command.output()).await;
    let output = output.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
    let said: String = String::from_utf8_lossy(&output.stdout).chars().take(200).collect();
    flavour_of(&said).ok_or_else(|| ServerError::Unknown { program: program.into(), said: said.clone() })
}

/// `virtiofsd 1.14.0` is the Rust one, `virtiofsd version 7.2.22 (Debian …)` is QEMU's.
fn flavour_of(said: &str) -> Option<Flavour> {
    let version = said.strip_prefix("virtiofsd ")?;
    match version.strip_prefix("version ") {
        Some(version) => version.starts_with(|c: char| c.is_ascii_digit()).then_some(Flavour::Qemu),
        None => version.starts_with(|c: char| c.is_ascii_digit()).then_some(Flavour::Rust),
    }
}

fn open_handle(child: &Child) -> io::Result<OwnedFd> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::NotFound)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Keeps the end of what a server writes, and tells its end.
async fn follow(mut child: Child, sender: watch::Sender<Option<ServerEnd>>) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let reading = child.stderr.take().map(|pipe| tokio::spawn(keep_end(pipe, Arc::clone(&said))));
    let status = child.wait().await.ok();
    if let Some(reading) = reading {
        // Its last words are in the pipe; a child of it that holds the pipe must not hold us.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(50), reading).await;
    }
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let said = String::from_utf8_lossy(&said).into_owned();
    sender.send_replace(Some(ServerEnd { status, said }));
}

async fn keep_end(mut pipe: impl AsyncRead + Unpin, kept: Arc<Mutex<Vec<u8>>>) {
    let mut chunk = [0; 1024];
    while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&chunk[..read]);
        let surplus = kept.len().saturating_sub(STDERR_KEPT);
        kept.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_are_told_by_their_versions() {
        assert_eq!(flavour_of("virtiofsd 1.14.0\n"), Some(Flavour::Rust));
        let qemu = "virtiofsd version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b2)\nCopyright (c) 2003-2022";
        assert_eq!(flavour_of(qemu), Some(Flavour::Qemu));
        for bad in ["", "virtiofsd", "virtiofsd version", "virtiofsd version x", "QEMU 7.2", "virtiofsd v1"] {
            assert_eq!(flavour_of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_end_is_one_line() {
        let end = |raw, said: &str| {
            ServerEnd { status: Some(ExitStatus::from_raw(raw)), said: said.into() }.to_string()
        };
        assert_eq!(end(9, ""), "virtiofsd was ended by signal 9");
        assert_eq!(end(256, "one\n\n two\n"), "virtiofsd ended with code 1: one; two");
    }
}
