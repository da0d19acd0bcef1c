//! A bare QEMU: the image and a serial port, no disk, no network, no vsock, and nobody who talks to it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Many times what a start takes under emulation on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// When something was reached, counted from the exec of QEMU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boot {
    /// The first instruction of `/init`, as far as that can tell.
    pub(super) init: Duration,
    /// The agent takes connections.
    pub(super) serving: Duration,
}

/// Boots the image once, until its agent serves.
pub(super) fn boot(image: &Path, accelerator: &str) -> Result<Boot> {
    let started = Instant::now();
    let mut child = qemu(image, accelerator).spawn().context("cannot start qemu-system-x86_64")?;
    let boot = watch(&mut child, started);
    child.kill().and_then(|()| child.wait().map(drop)).context("cannot end QEMU")?;
    boot
}

fn qemu(image: &Path, accelerator: &str) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-M", "q35", "-accel", accelerator, "-cpu", "max", "-m", "256", "-smp", "1"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-bios", "qboot.rom"]);
    command.arg("-kernel").arg(image.join("vmlinux")).arg("-initrd").arg(image.join("initrd"));
    // At this level the agent tells on the console how far it is, and how long that took it.
    command.args([
        "-append",
        "console=ttyS0 panic=-1 quiet cryptomgr.notests agent.log=info",
        "-serial",
        "stdio",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn watch(child: &mut Child, started: Instant) -> Result<Boot> {
    let lines = lines(child.stdout.take().context("no pipe")?);
    let mut init = None;
    loop {
        let left = DEADLINE.checked_sub(started.elapsed()).context("the agent does not come up")?;
        let (at, line) = lines.recv_timeout(left).context("the machine ended before its agent came up")?;
        let Some(spent) = milliseconds(&line) else { continue };
        let at = at.duration_since(started);
        // The first line tells how long ago /init started; later ones were held up by the same console.
        let init = *init.get_or_insert(at.saturating_sub(spent));
        if line.contains(" serving ") {
            return Ok(Boot { init, serving: at });
        }
    }
}

/// The lines of the console with the time of their arrival.
fn lines(console: impl Read + Send + 'static) -> Receiver<(Instant, String)> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = (Instant::now(), String::from_utf8_lossy(&line).into_owned());
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// How long the agent had been running when it wrote this line, if it says so.
fn milliseconds(line: &str) -> Option<Duration> {
    let (_, rest) = line.split_once("milliseconds=")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(Duration::from_millis(digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_time_is_read_from_its_lines() {
        let line = "2026-01-01T00:00:00.1Z  INFO vc_guest::boot::serve: serving milliseconds=315\r";
        assert_eq!(milliseconds(line), Some(Duration::from_millis(315)));
        assert_eq!(milliseconds("[    0.000000] Linux version 6.1"), None);
        assert_eq!(milliseconds("milliseconds="), None);
    }
}
