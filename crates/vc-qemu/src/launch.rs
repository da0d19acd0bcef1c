//! From a spec to a machine that takes commands.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;

use command_fds::FdMapping;
use nix::fcntl::OFlag;
use tokio::net::UnixStream;
use tokio::process::Command;
use vc_device::RootPorts;
use vc_hypervisor::{Hypervisor, LaunchError, MachineExit, MachineSpec};
use vc_types::{Deadline, HostPath};

use crate::accelerator;
use crate::args::{CONSOLE_FD, QMP_FD, VHOST_FD, command_line};
use crate::config::QemuConfig;
use crate::machine::{QEMU, QemuMachine, Shared};
use crate::process::Process;
use crate::qmp::Qmp;
use crate::tail::Tail;
use crate::vsock::{self, END_TIME};

/// How much of the guest's console is kept.
const CONSOLE_KEPT: usize = 16 << 10;

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
        readable("kernel", &spec.kernel)?;
        readable("initrd", &spec.initrd)?;
        let accelerator = accelerator::choose(spec.accelerator)?;
        let ports = RootPorts::new(spec.hotplug_ports)?;
        let mut vsock = vsock::prepare(&self.config, &spec.runtime_dir, deadline).await?;
        let args = command_line(spec, accelerator, &vsock.transport, &ports);
        let outcome = match self.spawn(args, vsock.vhost.take()) {
            Err(error) => Err(error),
            Ok(mut spawned) => match spawned.negotiate(deadline).await {
                Ok(qmp) => return Ok(QemuMachine::new(Shared::new(spawned, vsock, qmp, ports))),
                Err(error) => {
                    spawned.qemu.end(Deadline::after(END_TIME)).await;
                    Err(error)
                }
            },
        };
        // The first error counts; what the end of the helper meets, its drop says.
        let _ = vsock.end(Deadline::after(END_TIME)).await;
        outcome
    }
}

/// QEMU runs and has not been spoken to. Dropping this kills it.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) qemu: Process,
    pub(crate) console: Tail,
    control: Option<UnixStream>,
}

impl Qemu {
    fn spawn(&self, args: Vec<OsString>, vhost: Option<OwnedFd>) -> Result<Spawned, LaunchError> {
        let host = |step| move |source: io::Error| LaunchError::Host { step, source };
        let (control, qmp_end) = StdUnixStream::pair().map_err(host("make a socket pair for QMP"))?;
        let (console_end, serial_end) =
            StdUnixStream::pair().map_err(host("make a socket pair for the console"))?;
        let console = follow_console(console_end).map_err(host("read the guest's console"))?;
        let inherit = |fd: OwnedFd, child_fd| FdMapping { parent_fd: fd, child_fd };
        let mut fds = vec![inherit(qmp_end.into(), QMP_FD), inherit(serial_end.into(), CONSOLE_FD)];
        fds.extend(vhost.map(|vhost| inherit(vhost, VHOST_FD)));
        let control = into_tokio(control).map_err(host("open the QMP socket"))?;
        let mut command = Command::new(&self.config.program);
        command.args(args);
        tracing::info!(milestone = "exec qemu", "QEMU is being started");
        let qemu = Process::spawn(command, fds, self.config.die_with_parent).map_err(|source| {
            if source.kind() != io::ErrorKind::NotFound {
                return LaunchError::Host { step: "start QEMU", source };
            }
            LaunchError::ProgramMissing {
                program: self.config.program.display().to_string(),
                remedy: "install QEMU (Debian: qemu-system-x86), or name another with --qemu",
            }
        })?;
        Ok(Spawned { qemu, console, control: Some(control) })
    }
}

impl Spawned {
    /// Opens QMP; QEMU's own death is the better answer when both fail.
    async fn negotiate(&mut self, deadline: Deadline) -> Result<Qmp, LaunchError> {
        let stream = self.control.take().expect("negotiated once");
        tokio::select! {
            biased;
            cause = self.qemu.exited() => Err(self.ended(cause)),
            qmp = Qmp::connect(stream, deadline) => match qmp {
                Ok(qmp) => Ok(qmp),
                Err(error) => Err(self.explain(error, deadline).await),
            },
        }
    }

    /// A closed stream usually means that QEMU is about to be reaped; then its last words say why.
    async fn explain(&self, error: crate::qmp::QmpError, deadline: Deadline) -> LaunchError {
        let grace = deadline.at_most(std::time::Duration::from_secs(1));
        match tokio::time::timeout(grace.remaining(), self.qemu.exited()).await {
            Ok(cause) => self.ended(cause),
            Err(_) => LaunchError::Control(error.into()),
        }
    }

    fn ended(&self, cause: vc_hypervisor::ExitCause) -> LaunchError {
        let exit =
            MachineExit { cause, stderr_tail: self.qemu.stderr_tail(), console_tail: self.console.text() };
        LaunchError::Exited { program: QEMU, exit }
    }
}

fn readable(what: &'static str, path: &HostPath) -> Result<(), LaunchError> {
    let image = |source| LaunchError::Image { what, path: path.clone(), source };
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(image)?;
    let metadata = file.metadata().map_err(image)?;
    if metadata.is_file() { Ok(()) } else { Err(image(io::Error::other("not a regular file"))) }
}

fn into_tokio(stream: StdUnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

fn follow_console(end: StdUnixStream) -> io::Result<Tail> {
    let stream = into_tokio(end)?;
    let console = Tail::new(CONSOLE_KEPT);
    // With `quiet`, the first to write to the console is the guest's init.
    let first = || tracing::info!(milestone = "guest console", "the guest's console spoke");
    tokio::spawn(console.clone().follow(stream, first));
    Ok(console)
}
