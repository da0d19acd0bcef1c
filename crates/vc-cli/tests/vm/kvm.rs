//! Containers on the processor itself, reached by the kernel's own vsock.

use std::io::{BufRead, BufReader};

use vc_tests::host;

use crate::run::{Bench, assert_code, spawn, text};

/// What a guest of KVM can tell the time by (kernel, Documentation/virt/kvm/x86/msr.rst); one of TCG cannot.
const CLOCKS: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";

#[test]
fn smoke_a_container_runs_under_kvm() {
    let (true, Some(bench)) = (host::kvm(), Bench::new()) else { return };
    let script = format!("cat {CLOCKS}; echo err >&2; exit 7");
    let output = bench.finish(bench.vc(&["--accel", "kvm"], &["sh", "-c", &script]));
    assert_code(&output, 7);
    assert!(text(&output.stdout).contains("kvm-clock"), "{}", text(&output.stdout));
    assert_eq!(text(&output.stderr), "err\n");
}

#[test]
fn a_container_of_tcg_has_no_clock_of_kvm() {
    let Some(bench) = Bench::new() else { return };
    let output = bench.finish(bench.vc(&["--accel", "tcg"], &["cat", CLOCKS]));
    assert_code(&output, 0);
    assert!(!text(&output.stdout).contains("kvm-clock"), "{}", text(&output.stdout));
}

#[test]
fn without_kvm_the_refusal_says_what_to_do() {
    if host::has_kvm() {
        return vc_tests::skip("this host has KVM");
    }
    let Some(bench) = Bench::new() else { return };
    let output = bench.finish(bench.vc(&["--accel", "kvm"], &["true"]));
    assert_code(&output, 125);
    assert!(text(&output.stderr).contains("--accel tcg"), "{}", text(&output.stderr));
}

#[test]
fn where_the_kernel_serves_vsock_no_daemon_does() {
    let (true, Some(bench)) = (host::vhost_vsock(), Bench::new()) else { return };
    let mut child = spawn(bench.vc(&["--interactive"], &["sh", "-c", "echo up; cat"]));
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    assert_eq!(bench.leftovers.process("vhost-device-vsock"), None);
    assert!(bench.leftovers.process("vhost-vsock-pci").is_some(), "QEMU has the kernel's vsock");
    // Streams go over it in both directions: more than any buffer in between holds.
    let sent = "0123456789abcde\n".repeat(1 << 16);
    let mut stdin = child.stdin.take().unwrap();
    let received = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::io::Write::write_all(&mut stdin, sent.as_bytes()).unwrap();
            drop(stdin);
        });
        std::io::read_to_string(output).unwrap()
    });
    assert!(received == sent, "{} bytes came back of {}", received.len(), sent.len());
    assert!(child.wait().unwrap().success());
    bench.leftovers.assert_none();
}
