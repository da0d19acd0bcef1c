//! How host and guest talk: the kernel's vhost-vsock, or a daemon where the host has none.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::process::Command;
use vc_hypervisor::{LaunchError, MachineExit, StopError};
use vc_types::{AgentAddress, Deadline, HostPath, VsockCid, VsockPort};

use crate::config::{QemuConfig, User};
use crate::process::{Bonds, Process};
use crate::sockets::Sockets;
use crate::sys::{Identity, NewFiles};

/// The name that errors give the daemon.
pub(crate) const DAEMON: &str = "vhost-device-vsock";

const INSTALL_DAEMON: &str = "this host has no /dev/vhost-vsock that opens; install the daemon with `cargo install --locked vhost-device-vsock`";

/// How long a killed process may take to end when a launch failed.
pub(crate) const END_TIME: Duration = Duration::from_secs(5);

/// The sockets' names in their directory.
const CONTROL: &str = "vsock.sock";
const AGENT: &str = "agent.sock";

/// A Unix socket's path holds at most 107 bytes and a NUL (unix(7)).
/// Clients of the guest's ports append `_` and a port number to it.
const LONGEST_SOCKET_PATH: usize = 107 - "_4294967295".len();

/// How the guest is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Transport {
    /// `/dev/vhost-vsock`.
    Kernel {
        #[serde(with = "cid")]
        cid: VsockCid,
    },
    /// `vhost-device-vsock`: the device's other end is `control`, clients of the guest connect to `agent`.
    Daemon { control: HostPath, agent: HostPath },
}

impl Transport {
    pub(crate) fn agent_address(&self) -> AgentAddress {
        let port = VsockPort::AGENT;
        match self {
            Self::Kernel { cid } => AgentAddress::Vsock { cid: *cid, port },
            Self::Daemon { agent, .. } => AgentAddress::HybridVsock { socket: agent.clone(), port },
        }
    }

    /// Its sockets, with the directory that was made for them, if one was.
    fn sockets(&self, dir: Option<HostPath>) -> Sockets {
        let mut sockets = Sockets::new(dir);
        if let Self::Daemon { control, agent } = self {
            sockets.add(control.clone());
            sockets.add(agent.clone());
        }
        sockets
    }
}

/// A transport that is ready for QEMU. Dropping it kills the daemon that it started, and removes the sockets.
#[derive(Debug)]
pub(crate) struct Vsock {
    pub(crate) transport: Transport,
    /// For QEMU to inherit: the kernel's device with its context id set, or a connection to the daemon.
    pub(crate) device: Option<OwnedFd>,
    pub(crate) daemon: Option<Process>,
    /// Behind the daemon, which could make them again: fields are dropped in order.
    pub(crate) sockets: Sockets,
}

impl Vsock {
    /// One whose device QEMU has, with the daemon that serves it, if one does.
    pub(crate) fn in_use(transport: Transport, daemon: Option<Process>, dir: Option<HostPath>) -> Self {
        let sockets = transport.sockets(dir);
        Self { transport, device: None, daemon, sockets }
    }

    /// Leaves everything as it is when this value is dropped.
    pub(crate) fn let_go(&self) {
        self.sockets.let_go();
        if let Some(daemon) = &self.daemon {
            daemon.let_go();
        }
    }

    /// Ends the daemon, then removes the sockets.
    pub(crate) async fn end(&self, deadline: Deadline) -> Result<(), StopError> {
        if let Some(daemon) = &self.daemon
            && daemon.end(deadline).await.is_none()
        {
            return Err(StopError::StillRunning { program: DAEMON, pid: daemon.pid() });
        }
        self.sockets.remove()
    }

    /// Kills the daemon and removes the sockets, without waiting.
    pub(crate) fn abandon(&self) {
        if let Some(daemon) = &self.daemon {
            // Before its sockets go, or it could make them again.
            daemon.kill();
        }
        if let Err(error) = self.sockets.remove() {
            tracing::warn!(%error, "a dropped machine left a file");
        }
    }
}

/// Makes the transport ready: the kernel's where it exists and opens, else the daemon.
pub(crate) async fn prepare(
    config: &QemuConfig,
    dir: &HostPath,
    outlives_parent: bool,
    deadline: Deadline,
) -> Result<Vsock, LaunchError> {
    if let Ok((cid, vhost)) = kernel::claim() {
        let transport = Transport::Kernel { cid };
        let mut vsock = Vsock::in_use(transport, None, None);
        vsock.device = Some(vhost);
        return Ok(vsock);
    }
    let own = config.user.map(|user| make_dir(dir, user)).transpose()?;
    let made = Sockets::new(own.clone());
    let dir = own.as_ref().unwrap_or(dir);
    let (control, agent) = (socket(dir, CONTROL)?, socket(dir, AGENT)?);
    let news = NewFiles::watch(dir.as_path());
    let news = news.map_err(|source| LaunchError::Host { step: "watch the runtime directory", source })?;
    let daemon = spawn_daemon(config, dir, outlives_parent)?;
    let transport = Transport::Daemon { control, agent };
    made.let_go();
    let mut vsock = Vsock::in_use(transport, Some(daemon), own);
    match vsock.ready(&news, deadline).await {
        Ok(device) => {
            vsock.device = Some(device);
            Ok(vsock)
        }
        Err(error) => {
            // The first error counts; what the end of the daemon meets, the drop says.
            let _ = vsock.end(Deadline::after(END_TIME)).await;
            Err(error)
        }
    }
}

/// A directory below `runtime_dir` in which `user` may make sockets, and nobody else may anything.
fn make_dir(runtime_dir: &HostPath, user: User) -> Result<HostPath, LaunchError> {
    let host = |source| LaunchError::Host { step: "make a directory for the daemon's sockets", source };
    let dir = HostPath::new(runtime_dir.as_path().join("vsock")).expect("below an absolute path");
    fs::DirBuilder::new().mode(0o700).create(&dir).map_err(host)?;
    let owned = std::os::unix::fs::chown(&dir, Some(user.uid), Some(user.gid));
    if owned.is_err() {
        // It is empty, and the error that counts is the other one.
        let _ = fs::remove_dir(&dir);
    }
    owned.map_err(host)?;
    Ok(dir)
}

fn socket(dir: &HostPath, name: &str) -> Result<HostPath, LaunchError> {
    let path = dir.as_path().join(name);
    if path.as_os_str().len() <= LONGEST_SOCKET_PATH {
        return Ok(HostPath::new(path).expect("below an absolute path"));
    }
    let reason = "the runtime directory's path must be shorter than 80 bytes";
    Err(LaunchError::Host { step: "name the machine's sockets", source: io::Error::other(reason) })
}

fn spawn_daemon(config: &QemuConfig, dir: &HostPath, outlives_parent: bool) -> Result<Process, LaunchError> {
    let mut command = Command::new(&config.vsock_program);
    // Names in its working directory, since it may have no right to come there by a path.
    command.arg("--vm").arg(format!("guest-cid=3,socket={CONTROL},uds-path={AGENT}")).current_dir(dir);
    let identity = config.user.map(|user| Identity { user, groups: Vec::new() });
    let bonds = Bonds { die_with_parent: config.die_with_parent, outlives_parent, identity };
    Process::spawn(command, Vec::new(), &bonds).map_err(|source| {
        if source.kind() != io::ErrorKind::NotFound {
            return LaunchError::Host { step: "start vhost-device-vsock", source };
        }
        LaunchError::ProgramMissing {
            program: config.vsock_program.display().to_string(),
            remedy: INSTALL_DAEMON,
        }
    })
}

impl Vsock {
    /// Waits until the daemon listens, and connects to it.
    async fn ready(&self, news: &NewFiles, deadline: Deadline) -> Result<OwnedFd, LaunchError> {
        let (Transport::Daemon { control, .. }, Some(daemon)) = (&self.transport, &self.daemon) else {
            unreachable!("called for a daemon");
        };
        let listening = async {
            while !control.as_path().exists() {
                news.appeared().await?;
            }
            connect(control).await
        };
        tokio::select! {
            listening = tokio::time::timeout(deadline.remaining(), listening) => match listening {
                Ok(Ok(device)) => Ok(device),
                Ok(Err(source)) => Err(LaunchError::Host { step: "wait for vhost-device-vsock", source }),
                Err(_) => Err(LaunchError::Deadline { step: "starting vhost-device-vsock" }),
            },
            cause = daemon.exited() => {
                let exit = MachineExit {
                    cause,
                    shutdown: None,
                    stderr_tail: daemon.last_words().await,
                    console_tail: String::new(),
                };
                Err(LaunchError::Exited { program: DAEMON, exit })
            }
        }
    }
}

/// The socket is there a moment before the daemon listens on it.
async fn connect(control: &HostPath) -> io::Result<OwnedFd> {
    loop {
        match UnixStream::connect(control).await {
            Ok(stream) => {
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                return Ok(stream.into());
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => tokio::task::yield_now().await,
            Err(error) => return Err(error),
        }
    }
}

mod kernel {
    //! `/dev/vhost-vsock`: the context id is claimed here, so that two machines never share one.

    use std::fs::File;
    use std::hash::{BuildHasher, RandomState};
    use std::io;
    use std::os::fd::OwnedFd;

    use nix::errno::Errno;
    use vc_types::VsockCid;

    use crate::sys;

    /// How many random ids are tried; with 2^30 of them a second try is already rare.
    const TRIES: u64 = 16;

    pub(super) fn claim() -> io::Result<(VsockCid, OwnedFd)> {
        let vhost = File::options().read(true).write(true).open("/dev/vhost-vsock")?;
        let random = RandomState::new();
        for attempt in 0..TRIES {
            // 0 to 2 have a meaning of their own (vsock(7)).
            let id = 3 + random.hash_one(attempt) % (1 << 30);
            let cid = VsockCid(u32::try_from(id).expect("below 2^31"));
            match sys::set_guest_cid(&vhost, cid) {
                Ok(()) => return Ok((cid, vhost.into())),
                Err(Errno::EADDRINUSE) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }
}

mod cid {
    //! A context id as a number.

    use serde::{Deserialize, Deserializer, Serializer};
    use vc_types::VsockCid;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(cid: &VsockCid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(cid.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VsockCid, D::Error> {
        u32::deserialize(deserializer).map(VsockCid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_abandoned_takes_nothing_of_its_successor_along() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| HostPath::new(dir.path().join(name)).unwrap();
        let own = path("vsock");
        let (control, agent) = (path("vsock/vsock.sock"), path("vsock/agent.sock"));
        let vsock = || {
            fs::create_dir(&own).unwrap();
            [&control, &agent].iter().for_each(|socket| fs::write(socket, "").unwrap());
            let transport = Transport::Daemon { control: control.clone(), agent: agent.clone() };
            Vsock::in_use(transport, None, Some(own.clone()))
        };
        let first = vsock();
        first.abandon();
        assert!(!own.as_path().exists());
        // In the same place, as a second launch of the same spec is.
        let second = vsock();
        drop(first);
        assert!(control.as_path().exists() && agent.as_path().exists());
        drop(second);
        assert!(!own.as_path().exists());
    }
}
