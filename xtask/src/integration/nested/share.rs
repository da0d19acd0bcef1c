//! The real host's files for the nested one, by virtiofs.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::apt::{self, Need};
use crate::process;
use crate::tools::{self, VIRTIOFSD};
use crate::workspace::Workspace;

/// The daemon listens within milliseconds; this is for a host that does a lot else.
const DEADLINE: Duration = Duration::from_secs(30);

/// Debian 12 has a daemon beside QEMU, which only root may use.
const OF_QEMU: &str = "/usr/lib/qemu/virtiofsd";

/// What it takes to compile the other one, which serves whoever starts it.
const LIBRARIES: [Need; 2] = [
    Need { program: "/usr/include/cap-ng.h", package: "libcap-ng-dev" },
    Need { program: "/usr/include/seccomp.h", package: "libseccomp-dev" },
];

/// A running daemon. It ends with its machine, or when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) socket: PathBuf,
    daemon: Child,
}

impl Share {
    /// Starts the daemon for `/` with its socket in `directory`.
    pub(super) fn start(program: &Path, directory: &Path) -> Result<Self> {
        let socket = directory.join("virtiofs.sock");
        // Of the host before, if there was one.
        if socket.exists() {
            std::fs::remove_file(&socket).context("cannot remove the socket of another host")?;
        }
        let mut argument = std::ffi::OsString::from("--socket-path=");
        argument.push(&socket);
        let is_root = rustix::process::geteuid().is_root();
        let sandbox = if is_root { "sandbox=chroot" } else { "sandbox=none" };
        let mut command = process::bound(program);
        command.arg(argument).args(["-o", "source=/", "-o", "cache=always", "-o", sandbox]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut share = Self { socket, daemon };
        let deadline = Instant::now() + DEADLINE;
        while !share.socket.exists() {
            let runs = share.daemon.try_wait().context("cannot watch virtiofsd")?.is_none();
            ensure!(runs && Instant::now() < deadline, "{} does not come up", program.display());
            std::thread::yield_now();
        }
        Ok(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// The daemon, which is installed if it is missing.
pub(super) fn program(workspace: &Workspace) -> Result<PathBuf> {
    let of_qemu = Path::new(OF_QEMU);
    if rustix::process::geteuid().is_root() && of_qemu.exists() && workspace.find(VIRTIOFSD.name()).is_none()
    {
        return Ok(of_qemu.to_owned());
    }
    apt::install(&LIBRARIES)?;
    tools::ensure(workspace, VIRTIOFSD)?;
    workspace.find(VIRTIOFSD.name()).context("virtiofsd was installed and is not found")
}
