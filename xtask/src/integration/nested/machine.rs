//! The machine of the nested host: what it is made of, and its run.

use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::queue::Queue;
use super::share::Share;
use crate::integration::plan::Test;
use crate::integration::report::{Outcome, read_line};
use crate::integration::runner::{self, UP};
use crate::process;

/// Enough for a machine of a test next to the layers that it is made of, which are in memory too.
const MEMORY: &str = "3G";

/// From the start to the first line of the runner: ten seconds on an idle machine, minutes on a busy one.
const BOOT_DEADLINE: Duration = Duration::from_secs(5 * 60);

/// From one line of the runner to the next: it ends a test that takes too long, unless the whole host stands still.
const LINE_DEADLINE: Duration = runner::DEADLINE.saturating_add(Duration::from_secs(60));

/// How a nested host failed before the tests were through.
#[derive(Debug)]
pub(super) struct Fault {
    what: String,
    last_words: String,
    /// Whether its runner was ready.
    pub(super) is_up: bool,
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.what, self.last_words)
    }
}

/// Boots `image`, and has its runner run tests of the queue until none waits; shows what it writes.
pub(super) fn run(
    image: &Path,
    share: &Share,
    directory: &Path,
    (name, queue): (&str, &Queue<'_>),
) -> Result<Result<(), Fault>> {
    let console = directory.join("console");
    let mut command = process::bound("qemu-system-x86_64");
    processor(&mut command);
    boot(&mut command, image, &console);
    files(&mut command, share);
    devices(&mut command, directory)?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(directory.join("stderr"))?);
    let mut machine = Ended(command.spawn().context("cannot start QEMU")?);
    let input = machine.0.stdin.take().context("QEMU has no input")?;
    let output = machine.0.stdout.take().context("QEMU has no output")?;
    let ended = converse(Runner { name, lines: lines(output), input }, queue);
    Ok(ended.map_err(|(what, is_up)| Fault { what, last_words: last_words(directory), is_up }))
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

/// Has a runner run tests of the queue until none waits. An error is what went wrong, and whether the host was up.
fn converse(mut runner: Runner<'_, impl Write>, queue: &Queue<'_>) -> Result<(), (String, bool)> {
    runner.hear_that_it_is_up().map_err(|what| (what, false))?;
    while let Some(turn) = queue.take() {
        let begun = Instant::now();
        match runner.run(queue.test(&turn), (turn.number, queue.tests().len())) {
            Ok((outcome, took)) => queue.end(&turn, outcome, took),
            Err(what) => {
                queue.lose(turn, begun.elapsed());
                return Err((what, true));
            }
        }
    }
    Ok(())
}

/// The runner in a host of this name.
struct Runner<'a, W> {
    name: &'a str,
    lines: Receiver<String>,
    input: W,
}

impl<W: Write> Runner<'_, W> {
    fn hear_that_it_is_up(&self) -> Result<(), String> {
        while self.hear(BOOT_DEADLINE)? != UP {}
        Ok(())
    }

    /// Asks for a test, and hears how it ended.
    fn run(&mut self, test: &Test, place: (usize, usize)) -> Result<(Outcome, Duration), String> {
        // When it cannot be told, it has ended: the next line says so.
        let _ = writeln!(self.input, "{}", place.0);
        loop {
            if let Some(ended) = read_line(&self.hear(LINE_DEADLINE)?, place, test) {
                return Ok(ended);
            }
        }
    }

    /// The next line, which is shown.
    fn hear(&self, patience: Duration) -> Result<String, String> {
        let line = self.lines.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Disconnected => "it ended before its tests did".to_owned(),
            RecvTimeoutError::Timeout => format!("it wrote nothing for {} s", patience.as_secs()),
        })?;
        println!("{}: {line}", self.name);
        Ok(line)
    }
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
    // The runner has a device of its own, so that no message of the kernel gets into a line.
    command.args(["-device", "virtio-serial-pci", "-chardev", "stdio,id=runner,signal=off"]);
    command.args(["-device", "virtconsole,chardev=runner"]);
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
    use crate::test::Count;

    #[test]
    fn a_runner_is_told_the_next_test_until_none_waits() {
        let tests = ["one", "two", "three"].map(test);
        let queue = Queue::new(&tests);
        let (sender, lines) = channel();
        let took = Duration::from_secs(1);
        let failed = Outcome::Failed("exit status: 1".into());
        sender.send("this host".to_owned()).unwrap();
        sender.send(UP.to_owned()).unwrap();
        sender.send(line((1, 3), &tests[0], &Outcome::Passed, took)).unwrap();
        sender.send("[2/3] passed something else (1.0 s)".to_owned()).unwrap();
        sender.send(line((2, 3), &tests[1], &failed, took)).unwrap();
        sender.send(line((3, 3), &tests[2], &Outcome::Passed, took)).unwrap();
        let mut input = Vec::new();
        converse(Runner { name: "host 1", lines, input: &mut input }, &queue).unwrap();
        assert_eq!(input, b"1\n2\n3\n");
        assert_eq!(queue.report().count(), Count { passed: 2, failed: 1 });
    }

    #[test]
    fn a_host_that_ends_early_leaves_the_others_to_the_next() {
        let tests = ["one", "two"].map(test);
        let queue = Queue::new(&tests);
        let host = |said: &[String]| {
            let (sender, lines) = channel();
            said.iter().for_each(|line| sender.send(line.clone()).unwrap());
            drop(sender);
            let mut input = Vec::new();
            let runner = Runner { name: "host 1", lines, input: &mut input };
            let (what, is_up) = converse(runner, &queue).unwrap_err();
            assert_eq!(what, "it ended before its tests did");
            (is_up, String::from_utf8(input).unwrap())
        };
        assert_eq!(
            host(&["an error".to_owned()]),
            (false, String::new()),
            "a test that it was not given is not to blame"
        );
        let took = Duration::from_secs(1);
        let passed = line((1, 2), &tests[0], &Outcome::Passed, took);
        assert_eq!(host(&[UP.to_owned(), passed]), (true, "1\n2\n".to_owned()));
        assert_eq!(host(&[UP.to_owned()]), (true, "2\n".to_owned()), "once more");
        assert!(queue.is_empty(), "but not again");
        assert_eq!(queue.report().count(), Count { passed: 1, failed: 1 });
    }

    fn test(name: &str) -> Test {
        Test { suite: "a::vm".into(), name: name.into(), program: "".into(), directory: "".into() }
    }
}
