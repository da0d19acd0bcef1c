//! The machine of the nested host: what it is made of, and its run.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::share::Share;
use crate::integration::report;
use crate::test::Count;

/// Enough for a machine of a test next to the layers that it is made of, which are in memory too.
const MEMORY: &str = "3G";

/// The longest that the whole suite may take.
const DEADLINE: Duration = Duration::from_secs(25 * 60);

/// From the start to the first line of the runner: ten seconds on an idle machine, minutes on a busy one.
const BOOT_DEADLINE: Duration = Duration::from_secs(10 * 60);

/// Boots `image`, shows what its runner writes, and returns the sum that it ended with, if it did.
pub(super) fn run(image: &Path, share: &Share, directory: &Path) -> Result<Option<Count>> {
    let console = directory.join("console");
    let mut command = Command::new("qemu-system-x86_64");
    processor(&mut command);
    boot(&mut command, image, &console);
    files(&mut command, share);
    devices(&mut command, directory)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(directory.join("stderr"))?);
    let mut machine = Ended(command.spawn().context("cannot start QEMU")?);
    let output = machine.0.stdout.take().context("QEMU has no output")?;

    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    let started = Instant::now();
    let mut count = None;
    let mut deadline = BOOT_DEADLINE;
    loop {
        match lines.recv_timeout(deadline.saturating_sub(started.elapsed())) {
            Ok(line) => {
                deadline = DEADLINE;
                println!("{}", line.trim_end_matches('\r'));
                count = report::sum(&line).or(count);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                bail!("the nested host took longer than {} s\n{}", deadline.as_secs(), last_words(directory))
            }
        }
    }
    if count.is_none() {
        println!("{}", last_words(directory));
    }
    Ok(count)
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

fn processor(command: &mut Command) {
    command.args(["-M", "q35,accel=tcg,memory-backend=mem", "-cpu", "max", "-smp", "2", "-m", MEMORY]);
    // Shared, since virtiofsd reads and writes it.
    command.args(["-object", &format!("memory-backend-memfd,id=mem,size={MEMORY},share=on")]);
    command.args(["-device", "intel-iommu,intremap=on,caching-mode=on"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-bios", "qboot.rom"]);
}

fn boot(command: &mut Command, image: &Path, console: &Path) {
    command.arg("-kernel").arg(image.join("vmlinux")).arg("-initrd").arg(image.join("initrd"));
    // The timer check counts ticks of an emulated clock, and panics where the emulation is slow.
    let parameters = "console=ttyS0 panic=-1 quiet cryptomgr.notests no_timer_check intel_iommu=on iommu=pt";
    command.args(["-append", parameters]);
    let mut file = std::ffi::OsString::from("file:");
    file.push(console);
    command.arg("-serial").arg(file);
    // The runner's output has a device of its own, so that no message of the kernel gets into a line. Not QEMU's `stdio`,
    // which takes the end of the standard input for the end of both.
    command.args(["-device", "virtio-serial-pci", "-chardev", "file,id=output,path=/dev/stdout"]);
    command.args(["-device", "virtconsole,chardev=output"]);
}

fn files(command: &mut Command, share: &Share) {
    let mut socket = std::ffi::OsString::from("socket,id=host,path=");
    socket.push(&share.socket);
    command.arg("-chardev").arg(socket);
    command.args(["-device", "vhost-user-fs-pci,chardev=host,tag=host,queue-size=1024"]);
}

/// What tests may pass on, each behind a root port: an NVMe disk and a network card with groups of their own, a disk and
/// a card that share a group since they are functions of one device, and two graphics cards.
fn devices(command: &mut Command, directory: &Path) -> Result<()> {
    for port in 1..=5 {
        command.args(["-device", &format!("pcie-root-port,id=port{port},chassis={port},slot={port}")]);
    }
    let disks = [("alone", "bus=port1"), ("shared", "bus=port3,addr=0.0,multifunction=on")];
    for (name, place) in disks {
        let image = disk(directory, name)?;
        let mut drive = std::ffi::OsString::from(format!("if=none,format=raw,id={name},file="));
        drive.push(&image);
        command.arg("-drive").arg(drive);
        command.args(["-device", &format!("nvme,drive={name},serial=vc-{name},{place}")]);
    }
    for place in ["bus=port2", "bus=port3,addr=0.1"] {
        command.args(["-device", &format!("e1000e,{place}")]);
    }
    for port in [4, 5] {
        command.args(["-device", &format!("bochs-display,bus=port{port}")]);
    }
    Ok(())
}

/// A disk whose bytes tell it from every other.
fn disk(directory: &Path, name: &str) -> Result<PathBuf> {
    let path = directory.join(format!("{name}.img"));
    let sectors = (0..2048).map(|sector| format!("{:<511}\n", format!("disk {name}, sector {sector}")));
    std::fs::write(&path, sectors.collect::<String>())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The ends of what the kernel and QEMU wrote.
fn last_words(directory: &Path) -> String {
    let end = |name| {
        let text = std::fs::read(directory.join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    };
    format!("the kernel's last lines:\n{}\nQEMU's:\n{}", end("console"), end("stderr"))
}
