//! How host and guest talk: the kernel's vhost-vsock, or a daemon where the host has none.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use tokio::process::Command;
use vc_hypervisor::{LaunchError, MachineExit, StopError};
use vc_types::{AgentAddress, Deadline, HostPath, VsockCid, VsockPort};

use crate::config::QemuConfig;
use crate::process::Process;
use crate::sys::NewFiles;

/// The name that errors give the daemon.
pub(crate) const DAEMON: &str = "vhost-device-vsock";

const INSTALL_DAEMON: &str = "this host has no /dev/vhost-vsock that opens; install the daemon with `cargo install --locked vhost-device-vsock`";

/// How long a killed process may take to end when a launch failed.
pub(crate) const END_TIME: Duration = Duration::from_secs(5);

/// A Unix socket's path holds at most 107 bytes and a NUL (unix(7)).
/// Clients of the guest's ports append `_` and a port number to it.
const LONGEST_SOCKET_PATH: usize = 107 - "_4294967295".len();

/// How the guest is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// `/dev/vhost-vsock`.
    Kernel { cid: VsockCid },
    /// `vhost-device-vsock`: QEMU connects to `control`, clients of the guest to `agent`.
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

    fn remove_sockets(&self) -> Result<(), StopError> {
        match self {
            Self::Kernel { .. } => Ok(()),
            Self::Daemon { control, agent } => remove(control).and(remove(agent)),
        }
    }
}

/// A transport that is ready for QEMU. Dropping it kills the daemon and removes the sockets.
#[derive(Debug)]
pub(crate) struct Vsock {
    pub(crate) transport: Transport,
    /// The kernel's device with its context id set, for QEMU to inherit.
    pub(crate) vhost: Option<OwnedFd>,
    pub(crate) daemon: Option<Process>,
}

impl Vsock {
    /// Ends the daemon, then removes the sockets.
    pub(crate) async fn end(&self, deadline: Deadline) -> Result<(), StopError> {
        if let Some(daemon) = &self.daemon
            && daemon.end(deadline).await.is_none()
        {
            return Err(StopError::StillRunning { program: DAEMON, pid: daemon.pid() });
        }
        self.transport.remove_sockets()
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        if let Some(daemon) = &self.daemon {
            // Before its sockets go, or it could make them again.
            daemon.kill();
        }
        if let Err(error) = self.transport.remove_sockets() {
            tracing::warn!(%error, "a dropped machine left a file");
        }
    }
}

fn remove(path: &HostPath) -> Result<(), StopError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StopError::Leftover { path: path.clone(), source })
        }
        _ => Ok(()),
    }
}

/// Makes the transport ready: the kernel's where it exists and opens, else the daemon.
pub(crate) async fn prepare(
    config: &QemuConfig,
    dir: &HostPath,
    deadline: Deadline,
) -> Result<Vsock, LaunchError> {
    if let Ok((cid, vhost)) = kernel::claim() {
        return Ok(Vsock { transport: Transport::Kernel { cid }, vhost: Some(vhost), daemon: None });
    }
    let (control, agent) = (socket(dir, "vsock.sock")?, socket(dir, "agent.sock")?);
    let news = NewFiles::watch(dir.as_path());
    let news = news.map_err(|source| LaunchError::Host { step: "watch the runtime directory", source })?;
    let daemon = spawn_daemon(config, &control, &agent)?;
    let transport = Transport::Daemon { control, agent };
    let vsock = Vsock { transport, vhost: None, daemon: Some(daemon) };
    match vsock.ready(&news, deadline).await {
        Ok(()) => Ok(vsock),
        Err(error) => {
            // The first error counts; what the end of the daemon meets, the drop says.
            let _ = vsock.end(Deadline::after(END_TIME)).await;
            Err(error)
        }
    }
}

fn socket(dir: &HostPath, name: &str) -> Result<HostPath, LaunchError> {
    let path = dir.as_path().join(name);
    let fits = path.as_os_str().len() <= LONGEST_SOCKET_PATH;
    // The daemon and QEMU read their options as lists split at commas.
    let plain = !path.as_os_str().as_bytes().contains(&b',');
    if fits && plain {
        return Ok(HostPath::new(path).expect("below an absolute path"));
    }
    let reason = "the runtime directory must be shorter than 85 bytes and have no comma in it";
    Err(LaunchError::Host { step: "name the machine's sockets", source: io::Error::other(reason) })
}

fn spawn_daemon(config: &QemuConfig, control: &HostPath, agent: &HostPath) -> Result<Process, LaunchError> {
    let mut vm = OsString::from("guest-cid=3,socket=");
    vm.push(control.as_path());
    vm.push(",uds-path=");
    vm.push(agent.as_path());
    let mut command = Command::new(&config.vsock_program);
    command.arg("--vm").arg(vm);
    Process::spawn(command, Vec::new(), config.die_with_parent).map_err(|source| {
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
    /// Waits until the daemon listens.
    async fn ready(&self, news: &NewFiles, deadline: Deadline) -> Result<(), LaunchError> {
        let (Transport::Daemon { control, .. }, Some(daemon)) = (&self.transport, &self.daemon) else {
            return Ok(());
        };
        let listening = async {
            while !control.as_path().exists() {
                news.appeared().await?;
            }
            io::Result::Ok(())
        };
        tokio::select! {
            listening = tokio::time::timeout(deadline.remaining(), listening) => match listening {
                Ok(Ok(())) => Ok(()),
                Ok(Err(source)) => Err(LaunchError::Host { step: "wait for vhost-device-vsock", source }),
                Err(_) => Err(LaunchError::Deadline { step: "starting vhost-device-vsock" }),
            },
            cause = daemon.exited() => {
                let exit = MachineExit { cause, stderr_tail: daemon.stderr_tail(), console_tail: String::new() };
                Err(LaunchError::Exited { program: DAEMON, exit })
            }
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
