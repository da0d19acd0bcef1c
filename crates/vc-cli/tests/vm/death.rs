//! Sudden ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::run::{Bench, text};

fn start(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.try_into().unwrap())
}

/// Reads the first line of output, so that the command is known to run.
fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line
}

#[test]
fn the_death_of_qemu_is_told_at_once() {
    let Some(bench) = Bench::new() else { return };
    let mut child = start(bench.vc(&[], &["sh", "-c", "echo up; sleep 600"]));
    assert_eq!(first_line(&mut child), "up\n");
    let qemu = bench.leftovers.qemu().expect("QEMU runs");
    let killed = Instant::now();
    kill(pid(qemu), Signal::SIGKILL).unwrap();
    let output = child.wait_with_output().unwrap();
    let took = killed.elapsed();
    assert_eq!(output.status.code(), Some(125));
    assert!(took < Duration::from_secs(2), "took {took:?}");
    let said = text(&output.stderr);
    assert!(said.contains("the machine ended: it was killed by signal 9"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    bench.leftovers.assert_none();
}

#[test]
fn the_death_of_qemu_during_the_boot_is_told_at_once() {
    let Some(bench) = Bench::new() else { return };
    let child = start(bench.vc(&[], &["true"]));
    let deadline = Instant::now() + Duration::from_secs(60);
    let qemu = loop {
        assert!(Instant::now() < deadline, "QEMU did not start");
        if let Some(qemu) = bench.leftovers.qemu() {
            break qemu;
        }
    };
    kill(pid(qemu), Signal::SIGKILL).unwrap();
    let killed = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(killed.elapsed() < Duration::from_secs(2), "took {:?}", killed.elapsed());
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    assert!(said.contains("killed by signal 9"), "{said}");
    bench.leftovers.assert_none();
}

#[test]
fn an_interrupt_during_the_boot_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    let mut child = start(bench.vc(&[], &["true"]));
    let deadline = Instant::now() + Duration::from_secs(60);
    while bench.leftovers.qemu().is_none() {
        assert!(Instant::now() < deadline, "QEMU did not start");
    }
    kill(pid(child.id()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    bench.leftovers.assert_none();
}

#[test]
fn a_second_interrupt_ends_a_command_that_ignores_the_first() {
    let Some(bench) = Bench::new() else { return };
    let script = "trap 'echo ignored' INT; echo up; while :; do sleep 1; done";
    let mut child = start(bench.vc(&[], &["sh", "-c", script]));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    kill(pid(child.id()), Signal::SIGINT).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "ignored");
    kill(pid(child.id()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    bench.leftovers.assert_none();
}

#[test]
fn the_death_of_vc_takes_the_machine_along() {
    let Some(bench) = Bench::new() else { return };
    let mut child = start(bench.vc(&[], &["sh", "-c", "echo up; sleep 600"]));
    assert_eq!(first_line(&mut child), "up\n");
    child.kill().unwrap();
    child.wait().unwrap();
    bench.leftovers.assert_no_process();
}

#[test]
fn ctrl_c_at_a_terminal_is_for_the_command_and_not_for_qemu() {
    let Some(bench) = Bench::new() else { return };
    let script = "trap 'echo trapped; exit 42' INT; echo up; while :; do sleep 1; done";
    let mut command = bench.vc(&[], &["sh", "-c", script]);
    // A terminal signals the whole group of the foreground job.
    let mut child = start({
        command.process_group(0);
        command
    });
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    killpg(pid(child.id()), Signal::SIGINT).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "trapped");
    assert_eq!(child.wait().unwrap().code(), Some(42));
    bench.leftovers.assert_none();
}

#[test]
fn a_second_interrupt_ends_a_machine_that_hangs() {
    let Some(bench) = Bench::new() else { return };
    let mut child = start(bench.vc(&[], &["sh", "-c", "echo up; sleep 600"]));
    assert_eq!(first_line(&mut child), "up\n");
    kill(pid(bench.leftovers.qemu().expect("QEMU runs")), Signal::SIGSTOP).unwrap();
    kill(pid(child.id()), Signal::SIGTERM).unwrap();
    let asked = Instant::now();
    // One signal may swallow another of its kind that was not heard yet, so they differ.
    kill(pid(child.id()), Signal::SIGINT).unwrap();
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    bench.leftovers.assert_none();
}
