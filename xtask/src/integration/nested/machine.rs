//! The machine of the nested host: what it is made of, and its run.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result};

use super::share::Share;
use crate::integration::plan::Test;
use crate::integration::report::{Outcome, read_line};
use crate::integration::runner;
use crate::process;

/// Enough for a machine of a test next to the layers that it is made of, which are in memory too.
const MEMORY: &str = "3G";

/// From the start to the first line of the runner: ten seconds on an idle machine, minutes on a busy one.
const BOOT_DEADLINE: Duration = Duration::from_secs(5 * 60);

/// From one line of the runner to the next: it ends a test that takes too long, unless the whole host stands still.
const LINE_DEADLINE: Duration = runner::DEADLINE.saturating_add(Duration::from_secs(60));

/// What a nested host made of its tests.
#[derive(Debug)]
pub(super) struct Run {
    /// The outcomes of the first tests, of all of them unless there is a fault.
    pub(super) outcomes: Vec<(Outcome, Duration)>,
    /// How the host failed before its tests were through.
    pub(super) fault: Option<String>,
    /// Whether it came so far as to write a line.
    pub(super) is_up: bool,
}

/// Boots `image`, shows what its runner writes, and reads from that what became of the tests.
pub(super) fn run(
    image: &Path,
    share: &Share,
    directory: &Path,
    (name, tests): (&str, &[Test]),
) -> Result<Run> {
    let console = directory.join("console");
    let mut command = process::bound("qemu-system-x86_64");
    processor(&mut command);
    boot(&mut command, image, &console);
    files(&mut command, share);
    devices(&mut command, directory)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(directory.join("stderr"))?);
    let mut machine = Ended(command.spawn().context("cannot start QEMU")?);
    let output = machine.0.stdout.take().context("QEMU has no output")?;
    let mut run = follow(&lines(output), (name, tests));
    run.fault = run.fault.map(|fault| format!("{fault}\n{}", last_words(directory)));
    Ok(run)
}

/// The lines that somebody writes, as they come.
fn lines(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            if sender.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

/// Shows the lines of a runner, and gathers the outcomes until all are there or the host has failed.
fn follow(lines: &Receiver<String>, (name, tests): (&str, &[Test])) -> Run {
    let mut run = Run { outcomes: Vec::new(), fault: None, is_up: false };
    while let Some(test) = tests.get(run.outcomes.len()) {
        let patience = if run.is_up { LINE_DEADLINE } else { BOOT_DEADLINE };
        match lines.recv_timeout(patience) {
            Ok(line) => {
                println!("{name}: {line}");
                run.is_up = true;
                run.outcomes.extend(read_line(&line, (run.outcomes.len() + 1, tests.len()), test));
            }
            Err(RecvTimeoutError::Disconnected) => {
                run.fault = Some("it ended before its tests did".to_owned());
                break;
            }
            Err(RecvTimeoutError::Timeout) => {
                run.fault = Some(format!("it wrote nothing for {} s", patience.as_secs()));
                break;
            }
        }
    }
    run
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
    // Without fast string instructions, which are emulated byte by byte. A second processor would not be of use: a test has
    // one machine that computes, and another host has the next test.
    let processor = ["-cpu", "max,-erms,-fsrm", "-smp", "1"];
    command.args(["-M", "q35,accel=tcg,memory-backend=mem", "-m", MEMORY]).args(processor);
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
    // By the size of their memory a guest can tell one from the other.
    for (port, memory) in [(4, "16M"), (5, "32M")] {
        command.args(["-device", &format!("bochs-display,bus=port{port},vgamem={memory}")]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integration::report::line;

    #[test]
    fn a_host_that_ends_early_leaves_the_outcomes_so_far() {
        let test = |name: &str| Test {
            suite: "a::vm".into(),
            name: name.into(),
            program: "".into(),
            directory: "".into(),
        };
        let tests = ["one", "two", "three"].map(test);
        let (sender, lines) = channel();
        let took = Duration::from_secs(1);
        sender.send("nested host: up".to_owned()).unwrap();
        sender.send(line((1, 3), &tests[0], &Outcome::Passed, took)).unwrap();
        sender.send("[2/3] passed something else (1.0 s)".to_owned()).unwrap();
        drop(sender);
        let run = follow(&lines, ("host 1", &tests));
        assert_eq!(run.outcomes, [(Outcome::Passed, took)]);
        assert_eq!(run.fault.as_deref(), Some("it ended before its tests did"));
        assert!(run.is_up);

        let (sender, lines) = channel();
        sender.send(line((1, 1), &tests[0], &Outcome::Failed("exit status: 1".into()), took)).unwrap();
        let run = follow(&lines, ("host 1", &tests[..1]));
        assert_eq!(run.outcomes, [(Outcome::Failed("exit status: 1".into()), took)]);
        assert_eq!(run.fault, None, "whether it goes on or not");
    }
}
