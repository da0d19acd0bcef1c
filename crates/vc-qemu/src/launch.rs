//! From a spec to a machine that takes commands, in phases: prepared, spawned, connected.
//!
//! Each phase consumes the one before, so that nothing can be asked of a machine that is not there yet.
//! Dropping one ends what it holds.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::time::Duration;

use command_fds::FdMapping;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::task::JoinHandle;
use vc_device::Topology;
use vc_hypervisor::{ExitCause, Hypervisor, LaunchError, MachineExit, MachineSpec, StopError};
use vc_types::{Deadline, HostPath};

use crate::accelerator::{self, Chosen};
use crate::args::{CONSOLE_FD, INITRD_FD, KERNEL_FD, QMP_FD, VSOCK_FD, command_line};
use crate::config::{QemuConfig, User};
use crate::devices::Devices;
use crate::image::{self, Image};
use crate::machine::{QEMU, QemuMachine};
use crate::process::{Bonds, Process};
use crate::qmp::{Qmp, QmpError};
use crate::reattach::{self, CONSOLE_SOCKET, QMP_SOCKET};
use crate::sockets::Sockets;
use crate::sys::Identity;
use crate::tail::Tail;
use crate::vsock::{self, END_TIME, Vsock};

/// How much of the guest's console is kept.
const CONSOLE_KEPT: usize = 16 << 10;

/// How long the end of a QEMU whose stream ended may take to be noticed.
const REAP_TIME: Duration = Duration::from_secs(1);

/// QEMU as a hypervisor.
#[derive(Clone, Debug, Default)]
pub struct Qemu {
    config: QemuConfig,
}

impl Qemu {
    /// QEMU as `config` has it.
    pub fn new(config: QemuConfig) -> Self {
        Self { config }
    }
}

impl Hypervisor for Qemu {
    type Machine = QemuMachine;

    async fn launch(&self, spec: &MachineSpec, deadline: Deadline) -> Result<QemuMachine, LaunchError> {
        let prepared = Prepared::new(&self.config, spec, deadline).await?;
        let spawned = prepared.spawn(&self.config).await?;
        let (connected, topology) = spawned.connect(deadline).await?;
        Ok(QemuMachine::new(connected, spec, Devices::new(topology)))
    }

    async fn reattach(
        &self,
        spec: &MachineSpec,
        handle: &str,
        deadline: Deadline,
    ) -> Result<Option<QemuMachine>, LaunchError> {
        reattach::reattach(spec, handle, deadline).await
    }

    async fn clean_up(&self, spec: &MachineSpec, deadline: Deadline) -> Result<(), StopError> {
        reattach::clean_up(&self.config, &spec.runtime_dir, deadline).await
    }
}

/// Everything that QEMU will be given; its helper runs.
#[derive(Debug)]
struct Prepared {
    args: Vec<OsString>,
    dir: HostPath,
    image: Image,
    vsock: Vsock,
    topology: Topology,
    accelerator: Chosen,
    outlives_owner: bool,
    sockets: Sockets,
}

impl Prepared {
    async fn new(config: &QemuConfig, spec: &MachineSpec, deadline: Deadline) -> Result<Self, LaunchError> {
        let machine = config.machine_type;
        if let Some(reason) = machine.objection(spec) {
            return Err(LaunchError::MachineType { machine: machine.name(), reason });
        }
        let image = image::open(spec, config.user)?;
        let accelerator = accelerator::choose(spec.accelerator, config.user)?;
        let topology = Topology::new(machine.capacity(spec))?;
        let vsock = vsock::prepare(config, &spec.runtime_dir, spec.outlives_owner, deadline).await?;
        let args = command_line(spec, machine, accelerator, &vsock.transport, topology.capacity());
        let (dir, outlives_owner) = (spec.runtime_dir.clone(), spec.outlives_owner);
        let sockets = Sockets::new(None);
        Ok(Self { args, dir, image, vsock, topology, accelerator, outlives_owner, sockets })
    }

    async fn spawn(mut self, config: &QemuConfig) -> Result<Spawned, LaunchError> {
        match self.exec(config) {
            Ok((qemu, control, console, listening)) => {
                let Self { vsock, topology, accelerator, sockets, .. } = self;
                Ok(Spawned { qemu, control, console, listening, vsock, topology, accelerator, sockets })
            }
            Err(error) => {
                end_helper(&self.vsock).await;
                Err(error)
            }
        }
    }

    fn exec(
        &mut self,
        config: &QemuConfig,
    ) -> Result<(Process, UnixStream, Tail, JoinHandle<()>), LaunchError> {
        let host = |step| move |source: io::Error| LaunchError::Host { step, source };
        let (control, qmp_end) = self.ends(QMP_SOCKET).map_err(host("make a socket for QMP"))?;
        let (console_end, serial_end) =
            self.ends(CONSOLE_SOCKET).map_err(host("make a socket for the console"))?;
        let (console, listening) = follow_console(console_end).map_err(host("read the guest's console"))?;
        let control = into_tokio(control).map_err(host("open the QMP socket"))?;
        let identity = config.user.map(|user| identity(user, self.accelerator)).transpose();
        let identity = identity.map_err(host("look at /dev/kvm"))?;
        let mut command = Command::new(&config.program);
        // Whoever looks for what belongs to the machine finds it there.
        command.args(&self.args).current_dir(&self.dir);
        let fds = self.fds(qmp_end, serial_end).map_err(host("copy a descriptor"))?;
        let outlives_parent = self.outlives_owner;
        let bonds = Bonds { die_with_parent: config.die_with_parent, outlives_parent, identity };
        tracing::info!(milestone = "exec qemu", "QEMU is being started");
        let qemu = Process::spawn(command, fds, &bonds).map_err(|source| {
            if source.kind() != io::ErrorKind::NotFound {
                return LaunchError::Host { step: "start QEMU", source };
            }
            LaunchError::ProgramMissing {
                program: config.program.display().to_string(),
                remedy: "install QEMU (Debian: qemu-system-x86), or name another with --qemu",
            }
        })?;
        // Two for each image, and a container may have a hundred.
        if let Err(error) = qemu.raise_open_files() {
            tracing::debug!(%error, "QEMU may have few open files");
        }
        Ok((qemu, control, console, listening))
    }

    /// Our end of a connection to QEMU, and QEMU's: a socket to listen on if there is to be a next owner.
    fn ends(&mut self, name: &str) -> io::Result<(StdUnixStream, OwnedFd)> {
        if !self.outlives_owner {
            return pair();
        }
        let path = HostPath::new(self.dir.as_path().join(name)).expect("below an absolute path");
        let listener = UnixListener::bind(&path)?;
        // Not before: one that was there is another machine's.
        self.sockets.add(path.clone());
        // The first connection waits there for QEMU.
        Ok((StdUnixStream::connect(&path)?, listener.into()))
    }

    /// What QEMU inherits, each under the number that its command line names.
    fn fds(&mut self, qmp: OwnedFd, console: OwnedFd) -> io::Result<Vec<FdMapping>> {
        let inherit = |parent_fd: OwnedFd, child_fd| FdMapping { parent_fd, child_fd };
        let mut fds = vec![
            inherit(qmp, QMP_FD),
            inherit(console, CONSOLE_FD),
            inherit(self.image.kernel.try_clone()?, KERNEL_FD),
            inherit(self.image.initrd.try_clone()?, INITRD_FD),
        ];
        fds.extend(self.vsock.device.take().map(|device| inherit(device, VSOCK_FD)));
        Ok(fds)
    }
}

/// QEMU runs and has not been spoken to.
#[derive(Debug)]
struct Spawned {
    qemu: Process,
    control: UnixStream,
    console: Tail,
    listening: JoinHandle<()>,
    vsock: Vsock,
    topology: Topology,
    accelerator: Chosen,
    sockets: Sockets,
}

/// QEMU takes commands.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) qemu: Process,
    pub(crate) qmp: Qmp,
    pub(crate) console: Tail,
    /// Ends with the console.
    pub(crate) listening: JoinHandle<()>,
    pub(crate) vsock: Vsock,
    pub(crate) accelerator: Chosen,
    /// Those that QEMU listens on for its next owner; none if it has no next.
    pub(crate) sockets: Sockets,
}

impl Spawned {
    /// Opens QMP; QEMU's own death is the better answer when both fail.
    async fn connect(self, deadline: Deadline) -> Result<(Connected, Topology), LaunchError> {
        let Self { qemu, control, console, listening, vsock, topology, accelerator, sockets } = self;
        let failure = tokio::select! {
            biased;
            cause = qemu.exited() => Failure::Ended(cause),
            qmp = Qmp::connect(control, deadline) => match qmp {
                Ok(qmp) => {
                    let connected = Connected { qemu, qmp, console, listening, vsock, accelerator, sockets };
                    return Ok((connected, topology));
                }
                Err(error) => Failure::Unreachable(error),
            },
        };
        let error = failure.explain(&qemu, &console, deadline).await;
        // The first error counts.
        let _ = qemu.end(Deadline::after(END_TIME)).await;
        end_helper(&vsock).await;
        Err(error)
    }
}

/// Why QEMU takes no commands.
enum Failure {
    Ended(ExitCause),
    Unreachable(QmpError),
}

impl Failure {
    /// A closed stream usually means that QEMU is about to be reaped; then its last words say why.
    async fn explain(self, qemu: &Process, console: &Tail, deadline: Deadline) -> LaunchError {
        let cause = match self {
            Self::Ended(cause) => cause,
            Self::Unreachable(error) => {
                let grace = deadline.at_most(REAP_TIME);
                match tokio::time::timeout(grace.remaining(), qemu.exited()).await {
                    Ok(cause) => cause,
                    Err(_) => return LaunchError::Control(error.into()),
                }
            }
        };
        let exit = MachineExit {
            cause,
            shutdown: None,
            stderr_tail: qemu.last_words().await,
            console_tail: console.text(),
        };
        LaunchError::Exited { program: QEMU, exit }
    }
}

/// The error that counts is another; what the end of the helper meets, its drop says.
async fn end_helper(vsock: &Vsock) {
    let _ = vsock.end(Deadline::after(END_TIME)).await;
}

/// With KVM, a user needs the group that may open its device.
fn identity(user: User, accelerator: Chosen) -> io::Result<Identity> {
    let groups = match accelerator {
        Chosen::Kvm => vec![accelerator::kvm_group()?],
        Chosen::Tcg => Vec::new(),
    };
    Ok(Identity { user, groups: groups.into_iter().filter(|group| group.as_raw() != 0).collect() })
}

/// A connection that QEMU has the other end of, and nobody can have again.
fn pair() -> io::Result<(StdUnixStream, OwnedFd)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    Ok((ours, theirs.into()))
}

fn into_tokio(stream: StdUnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

pub(crate) fn follow_console(end: StdUnixStream) -> io::Result<(Tail, JoinHandle<()>)> {
    let stream = into_tokio(end)?;
    let console = Tail::new(CONSOLE_KEPT);
    // With `quiet`, the first to write to the console is the guest's init.
    let first = || tracing::info!(milestone = "guest console", "the guest's console spoke");
    let listening = tokio::spawn(console.clone().follow(stream, first));
    Ok((console, listening))
}
