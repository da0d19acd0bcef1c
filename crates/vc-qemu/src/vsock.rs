//! How host and guest talk: the kernel's vhost-vsock, or a daemon where the host has none.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use tokio::process::Command;
use vc_hypervisor::{LaunchError, MachineExit};
use vc_types::{AgentAddress, Deadline, HostPath, VsockCid, VsockPort};

use crate::config::QemuConfig;
use crate::process::Process;
use crate::sys::NewFiles;

/// The name that errors give the daemon.
pub(crate) const DAEMON: &str = "vhost-device-vsock";

/// A Unix socket's path holds at most 107 bytes and a NUL (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

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
}

/// A transport that is ready for QEMU.
#[derive(Debug)]
pub(crate) struct Vsock {
    pub(crate) transport: Transport,
    /// The kernel's device with its context id set, for QEMU to inherit.
    pub(crate) vhost: Option<OwnedFd>,
    pub(crate) daemon: Option<Process>,
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
    let transport =
        Transport::Daemon { control: socket(dir, "vsock.sock")?, agent: socket(dir, "agent.sock")? };
    let daemon = start_daemon(config, dir, &transport, deadline).await?;
    Ok(Vsock { transport, vhost: None, daemon: Some(daemon) })
}

fn socket(dir: &HostPath, name: &str) -> Result<HostPath, LaunchError> {
    let path = dir.as_path().join(name);
    let fits = path.as_os_str().len() <= LONGEST_SOCKET_PATH;
    // The daemon and QEMU read their options as lists split at commas.
    let plain = !path.as_os_str().as_bytes().contains(&b',');
    if fits && plain {
        return Ok(HostPath::new(path).expect("below an absolute path"));
    }
    let reason = "the runtime directory must be shorter than 96 bytes and have no comma in it";
    Err(LaunchError::Host { step: "name the machine's sockets", source: io::Error::other(reason) })
}

async fn start_daemon(
    config: &QemuConfig,
    dir: &HostPath,
    transport: &Transport,
    deadline: Deadline,
) -> Result<Process, LaunchError> {
    let Transport::Daemon { control, agent } = transport else {
        unreachable!("the kernel's transport needs no daemon")
    };
    let host = |step| move |source: io::Error| LaunchError::Host { step, source };
    let news = NewFiles::watch(dir.as_path()).map_err(host("watch the runtime directory"))?;
    let mut command = Command::new(&config.vsock_program);
    let mut vm = OsString::from("guest-cid=3,socket=");
    vm.push(control.as_path());
    vm.push(",uds-path=");
    vm.push(agent.as_path());
    command.arg("--vm").arg(vm);
    let daemon = match Process::spawn(command, Vec::new(), config.die_with_parent) {
        Ok(daemon) => daemon,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(LaunchError::ProgramMissing {
                program: config.vsock_program.display().to_string(),
                remedy: "this host has no usable /dev/vhost-vsock; install the daemon with `cargo install --locked vhost-device-vsock`",
            });
        }
        Err(source) => return Err(host("start vhost-device-vsock")(source)),
    };
    let ready = async {
        while !control.as_path().exists() {
            news.appeared().await?;
        }
        io::Result::Ok(())
    };
    let outcome = tokio::select! {
        ready = tokio::time::timeout(deadline.remaining(), ready) => match ready {
            Ok(ready) => ready.map_err(host("wait for vhost-device-vsock")),
            Err(_) => Err(LaunchError::Deadline { step: "starting vhost-device-vsock" }),
        },
        cause = daemon.exited() => {
            let exit = MachineExit { cause, stderr_tail: daemon.stderr_tail(), console_tail: String::new() };
            Err(LaunchError::Exited { program: DAEMON, exit })
        }
    };
    outcome.map(|()| daemon)
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
