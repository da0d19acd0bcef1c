//! virtiofsd: which one it is, and how it is called.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use command_fds::{CommandFdExt, FdMapping};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;
use vc_types::{Deadline, HostPath};

use super::{Cache, Server, ServerConfig, ServerError, find_virtiofsd};

/// The descriptor of the socket in the server.
const SOCKET_FD: i32 = 3;

/// Starts it. It gets its socket open, so that nobody has to wait for it.
pub(super) async fn start(
    config: &ServerConfig,
    directory: &HostPath,
    socket: &HostPath,
    deadline: Deadline,
) -> Result<Server, ServerError> {
    let program = config.program.clone().map_or_else(find_virtiofsd, Ok)?;
    let flavour = flavour(&program, deadline).await?;
    let arguments = arguments(flavour, config.cache, directory);
    let arguments = arguments.map_err(|source| ServerError::Run { program: program.clone(), source })?;
    let failed = |source| ServerError::Socket { socket: socket.clone(), source };
    let listener = UnixListener::bind(socket.as_path()).map_err(failed)?;
    let mut command = Command::new(&program);
    command.args(arguments);
    let fd = FdMapping { parent_fd: listener.into(), child_fd: SOCKET_FD };
    command.fd_mappings(vec![fd]).expect("one descriptor collides with no other");
    Server::spawn(config, command, socket)
}

/// It serves one connection, and ends with that.
pub(super) async fn end_unknown(socket: &HostPath) {
    // Refused when nobody listens any more.
    let Ok(mut connection) = UnixStream::connect(socket).await else { return };
    if connection.shutdown().await.is_ok() {
        // Until it ends.
        let _ = connection.read_to_end(&mut Vec::new()).await;
    }
}

/// Which virtiofsd it is: their options differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    /// The one in Rust (`gitlab.com/virtio-fs/virtiofsd`).
    Rust,
    /// The one in C, of QEMU 5.0 to 7.2.
    Qemu,
}

fn arguments(flavour: Flavour, cache: Cache, directory: &HostPath) -> io::Result<Vec<OsString>> {
    let directory = directory.as_path().as_os_str();
    // A path may have any bytes.
    let with = |before: &str, after: String| [before.as_ref(), directory, after.as_ref()].join("".as_ref());
    match flavour {
        Flavour::Rust => {
            let cache = match cache {
                Cache::Auto => "auto",
                Cache::Never => "never",
                Cache::Always => "always",
            };
            Ok(vec![
                format!("--fd={SOCKET_FD}").into(),
                with("--shared-dir=", String::new()),
                format!("--cache={cache}").into(),
                "--sandbox=namespace".into(),
                "--log-level=warn".into(),
            ])
        }
        Flavour::Qemu => {
            let cache = match cache {
                Cache::Auto => "auto",
                Cache::Never => "none",
                Cache::Always => "always",
            };
            if directory.as_bytes().contains(&b',') {
                let why = "QEMU's virtiofsd shares no path with a comma in it: use the one in Rust, or another path";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            let options = with("source=", format!(",cache={cache},sandbox=namespace,log_level=warn"));
            Ok(vec!["-f".into(), format!("--fd={SOCKET_FD}").into(), "-o".into(), options])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_arrives_as_it_is_or_is_refused() {
        let path = std::ffi::OsStr::from_bytes(b"/run/a,\xff");
        let path = HostPath::new(path).unwrap();
        let shared = &arguments(Flavour::Rust, Cache::Auto, &path).unwrap()[1];
        assert_eq!(shared.as_bytes(), b"--shared-dir=/run/a,\xff");
        arguments(Flavour::Qemu, Cache::Auto, &path).unwrap_err();
        let path = HostPath::new("/run/a").unwrap();
        let options = &arguments(Flavour::Qemu, Cache::Never, &path).unwrap()[3];
        assert_eq!(options, "source=/run/a,cache=none,sandbox=namespace,log_level=warn");
    }

    #[test]
    fn the_two_are_told_by_their_versions() {
        assert_eq!(flavour_of("virtiofsd 1.14.0\n"), Some(Flavour::Rust));
        let qemu = "virtiofsd version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b2)\nCopyright (c) 2003-2022";
        assert_eq!(flavour_of(qemu), Some(Flavour::Qemu));
        for bad in ["", "virtiofsd", "virtiofsd version", "virtiofsd version x", "QEMU 7.2", "virtiofsd v1"] {
            assert_eq!(flavour_of(bad), None, "{bad:?}");
        }
    }
}
