//! A bare QEMU, started by hand: the same image, memory, vsock and ports as `vc` gives a machine, but no disk, no QMP, and
//! nobody who asks anything.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

/// Many times what a start takes under emulation on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// When something was reached, counted from the exec of QEMU if nothing else is said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boot {
    /// The agent greeted the console, the first thing it does.
    pub(super) init: Duration,
    /// The agent told the host that it serves.
    pub(super) serving: Duration,
    /// The same, counted from the start of the daemon that QEMU needs.
    pub(super) answer: Duration,
}

/// Boots the image once, until its agent serves.
pub(super) fn boot(workspace: &Workspace, image: &Path, accelerator: &str) -> Result<Boot> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let sockets = directory.path();
    let announcement = UnixListener::bind(sockets.join("agent_1027")).context("cannot listen")?;
    let began = Instant::now();
    let mut daemon = Ended(daemon(workspace, sockets)?.spawn().context("cannot start vhost-device-vsock")?);
    wait_for_socket(&sockets.join("vsock"), &mut daemon.0)?;
    let started = Instant::now();
    let mut machine = Ended(qemu(image, sockets, accelerator).spawn().context("cannot start QEMU")?);
    let (sender, news) = channel();
    let console = machine.0.stdout.take().context("no pipe")?;
    tell(sender.clone(), move || BufReader::new(console).read_until(b'\n', &mut Vec::new()).map(drop));
    let init = at(&news, started).context("/init did not greet the console")?;
    tell(sender, move || announcement.accept().map(drop));
    let serving = at(&news, started).context("the agent did not announce itself")?;
    Ok(Boot { init, serving, answer: serving + started.duration_since(began) })
}

/// A process that is ended when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn daemon(workspace: &Workspace, sockets: &Path) -> Result<Command> {
    let program = workspace.find("vhost-device-vsock").context("vhost-device-vsock is not installed")?;
    let mut command = Command::new(program);
    let (control, agent) = (sockets.join("vsock"), sockets.join("agent"));
    let vm = format!("guest-cid=3,socket={},uds-path={}", control.display(), agent.display());
    command.args(["--vm", &vm]).stderr(Stdio::null());
    Ok(command)
}

/// The daemon is ready in a few milliseconds, before anything is timed.
fn wait_for_socket(socket: &Path, daemon: &mut Child) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while !socket.exists() {
        ensure!(
            daemon.try_wait()?.is_none() && Instant::now() < deadline,
            "vhost-device-vsock does not come up"
        );
        thread::yield_now();
    }
    Ok(())
}

fn qemu(image: &Path, sockets: &Path, accelerator: &str) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    let cpu = if accelerator == "kvm" { "host" } else { "max,-erms,-fsrm" };
    command.args([
        "-M",
        "q35,memory-backend=mem",
        "-accel",
        accelerator,
        "-cpu",
        cpu,
        "-m",
        "256M",
        "-smp",
        "1",
    ]);
    command.args(["-object", "memory-backend-memfd,id=mem,size=256M,share=on"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-bios", "qboot.rom"]);
    command.arg("-kernel").arg(image.join("vmlinux")).arg("-initrd").arg(image.join("initrd"));
    command.args(["-append", "console=ttyS0 panic=-1 quiet cryptomgr.notests agent.ready_vport=1027"]);
    command.arg("-chardev").arg(format!("socket,id=vsock,path={}", sockets.join("vsock").display()));
    command.args(["-device", "vhost-user-vsock-pci,chardev=vsock,addr=0x2"]);
    for port in 0..8 {
        let place = format!("addr=0x8.{port},multifunction=on,chassis={},slot={port}", port + 1);
        command.arg("-device").arg(format!("pcie-root-port,id=rp{port},{place}"));
    }
    command.args(["-serial", "stdio"]).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Sends the time at which `wait` was over.
fn tell(sender: Sender<Instant>, wait: impl FnOnce() -> std::io::Result<()> + Send + 'static) {
    thread::spawn(move || wait().ok().and_then(|()| sender.send(Instant::now()).ok()));
}

fn at(news: &Receiver<Instant>, started: Instant) -> Result<Duration> {
    let left = DEADLINE.checked_sub(started.elapsed()).context("it took too long")?;
    Ok(news.recv_timeout(left).context("it took too long")?.duration_since(started))
}
