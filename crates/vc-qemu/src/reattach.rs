//! Taking over a QEMU whose owner has died, and ending what is left of one that cannot be taken over.
//!
//! QEMU listens on its QMP socket and on that of its console if it was launched to outlive its owner. What
//! the next owner has to know besides is the handle: which processes they are, how the guest is reached, and
//! what is plugged where. QEMU is asked what is there all the same: a plug that was under way when the owner
//! died is not in the handle.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use vc_hypervisor::{LaunchError, MachineSpec, StopError};
use vc_types::{Deadline, HostPath, ProcessIdentity};

use crate::accelerator::Chosen;
use crate::config::QemuConfig;
use crate::devices::{Devices, DevicesRecord};
use crate::launch::{Connected, follow_console};
use crate::machine::{QEMU, QemuMachine, Shared};
use crate::process::Process;
use crate::qmp::Qmp;
use crate::sockets::Sockets;
use crate::stock::take_stock;
use crate::sys;
use crate::tail::Tail;
use crate::vsock::{DAEMON, Transport, Vsock};

/// The names of QEMU's sockets in the runtime directory.
pub(crate) const QMP_SOCKET: &str = "qmp.sock";
pub(crate) const CONSOLE_SOCKET: &str = "console.sock";

/// The version of the form below.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Handle {
    version: u32,
    qemu: Option<ProcessIdentity>,
    daemon: Option<ProcessIdentity>,
    transport: Transport,
    /// The directory that was made for the daemon's sockets, if one was.
    sockets: Option<HostPath>,
    hardware: bool,
    devices: DevicesRecord,
}

/// What the next owner has to know.
pub(crate) fn handle(shared: &Shared) -> String {
    let handle = Handle {
        version: VERSION,
        qemu: shared.qemu.identification(),
        daemon: shared.vsock.daemon.as_ref().and_then(Process::identification),
        transport: shared.vsock.transport.clone(),
        sockets: shared.vsock.sockets.dir().cloned(),
        hardware: shared.accelerator == Chosen::Kvm,
        devices: shared.devices().record(shared.next_fdset.load(Ordering::Relaxed)),
    };
    serde_json::to_string(&handle).expect("maps have text as keys")
}

/// Takes over the machine; `None` when it has ended.
///
/// Nothing that is dropped on the way, by an error or by a caller who leaves, ends the machine: its processes are let
/// go as they are adopted, and there is no [`QemuMachine`] and no [`Vsock`] before nothing is left to wait for.
pub(crate) async fn reattach(
    spec: &MachineSpec,
    handle: &str,
    deadline: Deadline,
) -> Result<Option<QemuMachine>, LaunchError> {
    let handle = parse(handle)?;
    let mut devices =
        Devices::try_from(handle.devices).map_err(|error| LaunchError::Control(error.into()))?;
    let Some(qemu) = adopt(handle.qemu, "look for QEMU")? else { return Ok(None) };
    let daemon = match (&handle.transport, adopt(handle.daemon, "look for vhost-device-vsock")?) {
        (Transport::Daemon { .. }, None) => {
            // QEMU is of no use without it, and it was to end with it.
            let _ = qemu.end(deadline).await;
            return Ok(None);
        }
        (_, daemon) => daemon,
    };
    let qmp = connect(spec, &qemu, deadline).await?;
    let stock = take_stock(&qmp, &mut devices, deadline).await;
    stock.map_err(|error| LaunchError::Control(error.into()))?;
    let (console, listening) = connect_console(spec)?;
    let vsock = Vsock::in_use(handle.transport, daemon, handle.sockets);
    let accelerator = if handle.hardware { Chosen::Kvm } else { Chosen::Tcg };
    let sockets = sockets(spec);
    let connected = Connected { qemu, qmp, console, listening, vsock, accelerator, sockets };
    Ok(Some(QemuMachine::new(connected, spec, devices)))
}

fn parse(handle: &str) -> Result<Handle, LaunchError> {
    let parsed: Handle = serde_json::from_str(handle).map_err(|error| LaunchError::Control(error.into()))?;
    if parsed.version != VERSION {
        let version = parsed.version;
        let error = format!("the machine's handle has version {version}; this program reads {VERSION}");
        return Err(LaunchError::Control(error.into()));
    }
    Ok(parsed)
}

fn adopt(process: Option<ProcessIdentity>, step: &'static str) -> Result<Option<Process>, LaunchError> {
    let Some(process) = process else { return Ok(None) };
    Process::adopt(&process).map_err(|source| LaunchError::Host { step, source })
}

/// Connects where QEMU listens for commands. A QEMU that dies meanwhile closes it.
async fn connect(spec: &MachineSpec, qemu: &Process, deadline: Deadline) -> Result<Qmp, LaunchError> {
    let control = UnixStream::connect(spec.runtime_dir.as_path().join(QMP_SOCKET)).await;
    let control = control.map_err(|source| LaunchError::Host { step: "connect to QMP", source })?;
    tokio::select! {
        qmp = Qmp::connect(control, deadline) => qmp.map_err(|error| LaunchError::Control(error.into())),
        _ = qemu.exited() => Err(LaunchError::Control(format!("{QEMU} ended").into())),
    }
}

/// Only once the machine is sure to be taken over: what QEMU writes there is read once.
fn connect_console(spec: &MachineSpec) -> Result<(Tail, JoinHandle<()>), LaunchError> {
    let console = StdUnixStream::connect(spec.runtime_dir.as_path().join(CONSOLE_SOCKET));
    let console = console.and_then(follow_console);
    console.map_err(|source| LaunchError::Host { step: "connect to the console", source })
}

/// Ends QEMU and its helper, told by their names and by `dir` being their working directory, and removes the
/// sockets in there. What else works in that directory, such as somebody's shell, is left alone.
pub(crate) async fn clean_up(
    config: &QemuConfig,
    dir: &HostPath,
    deadline: Deadline,
) -> Result<(), StopError> {
    for (pid, program) in processes_in(config, dir.as_path()) {
        let Some(pid) = Pid::from_raw(pid) else { continue };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        // Behind the handle: the number may be another's by now.
        if role(config, pid.as_raw_nonzero().get(), dir.as_path()) != Some(program) {
            continue;
        }
        let _ = pidfd_send_signal(&handle, Signal::KILL);
        let still = StopError::StillRunning { program, pid: pid.as_raw_nonzero().get().unsigned_abs() };
        let Ok(ended) = sys::watch(handle) else { return Err(still) };
        if tokio::time::timeout(deadline.remaining(), ended.readable()).await.is_err() {
            return Err(still);
        }
    }
    let leftover = |source| StopError::Leftover { path: dir.clone(), source };
    match fs::read_dir(dir) {
        Ok(entries) => entries.flatten().try_for_each(|entry| remove(&entry)).map_err(leftover),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(leftover(error)),
    }
}

/// The sockets on which QEMU listens for its next owner.
fn sockets(spec: &MachineSpec) -> Sockets {
    let mut sockets = Sockets::new(None);
    for name in [QMP_SOCKET, CONSOLE_SOCKET] {
        let path = spec.runtime_dir.as_path().join(name);
        sockets.add(HostPath::new(path).expect("below an absolute path"));
    }
    sockets
}

/// A socket, or the directory with the daemon's sockets. Whatever else is there is not of a machine.
fn remove(entry: &fs::DirEntry) -> io::Result<()> {
    let kind = entry.file_type()?;
    match () {
        () if kind.is_socket() => fs::remove_file(entry.path()),
        () if kind.is_dir() && entry.file_name() == "vsock" => fs::remove_dir_all(entry.path()),
        () => Ok(()),
    }
}

/// The machine's processes in a directory, QEMU before its helper.
fn processes_in(config: &QemuConfig, dir: &Path) -> Vec<(i32, &'static str)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<_> = pids.filter_map(|pid| Some((pid, role(config, pid, dir)?))).collect();
    found.sort_by_key(|(_, program)| *program == DAEMON);
    found
}

/// What a process is to the machine of a directory; `None` when it is not one of its own.
fn role(config: &QemuConfig, pid: i32, dir: &Path) -> Option<&'static str> {
    if fs::read_link(format!("/proc/{pid}/cwd")).ok()? != dir {
        return None;
    }
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let name = name.trim_ascii_end();
    // A program that is configured may be a wrapper, and have become the usual one.
    let usual = QemuConfig::default();
    let is = |program: &Path| program.file_name().is_some_and(|file| comm(file.as_bytes()) == name);
    match () {
        () if is(&config.program) || is(&usual.program) => Some(QEMU),
        () if is(&config.vsock_program) || is(&usual.vsock_program) => Some(DAEMON),
        () => None,
    }
}

/// What the kernel keeps of a program's name (proc(5), `/proc/pid/comm`).
fn comm(program: &[u8]) -> &[u8] {
    &program[..program.len().min(15)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    #[tokio::test]
    async fn only_the_machines_own_processes_are_ended() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        // Its name is longer than what the kernel keeps.
        let program = dir.join("qemu-with-a-long-name");
        fs::copy("/bin/sleep", &program).unwrap();
        let start =
            |program: &Path, dir: &Path| Command::new(program).arg("1000").current_dir(dir).spawn().unwrap();
        let mut qemu = start(&program, &dir);
        let mut elsewhere = start(&program, Path::new("/"));
        let mut other = start(Path::new("/bin/sleep"), &dir);
        let config = QemuConfig { program, ..QemuConfig::default() };

        let deadline = Deadline::after(Duration::from_secs(60));
        clean_up(&config, &HostPath::new(&dir).unwrap(), deadline).await.unwrap();
        assert!(!qemu.wait().unwrap().success());
        for innocent in [&mut elsewhere, &mut other] {
            assert!(innocent.try_wait().unwrap().is_none(), "it still runs");
            innocent.kill().unwrap();
            innocent.wait().unwrap();
        }
    }
}
