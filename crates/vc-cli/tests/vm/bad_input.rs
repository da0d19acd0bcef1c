//! Bad input: one line that names the thing and what to do, the right exit code, and nothing left.

use std::fs;
use std::process::{Command, Output};

use crate::run::{Bench, assert_code, text};

/// Asserts the exit code and a single line that has each of `parts`.
#[track_caller]
fn assert_refused(output: &Output, code: i32, parts: &[&str]) {
    assert_code(output, code);
    let said = text(&output.stderr);
    assert!(said.starts_with("vc: ") && said.lines().count() == 1, "one line: {said:?}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
    assert!(output.stdout.is_empty());
}

fn with_layer(bench: &Bench, layer: &std::path::Path) -> Command {
    let mut command = bench.bare();
    command.arg("--layer").arg(layer).args(["--", "true"]);
    command
}

#[test]
fn a_layer_that_is_no_image_is_named() {
    let Some(bench) = Bench::new() else { return };
    let layer = bench.layers.path().join("text.erofs");
    fs::write(&layer, "just text\n".repeat(1000)).unwrap();
    let output = bench.finish(with_layer(&bench, &layer));
    assert_refused(&output, 125, &["text.erofs", "not an EROFS image", "mkfs.erofs"]);
}

#[test]
fn a_truncated_layer_is_named() {
    let Some(bench) = Bench::new() else { return };
    let layer = bench.layers.path().join("short.erofs");
    let whole = fs::read(&bench.busybox).unwrap();
    fs::write(&layer, &whole[..whole.len() / 2]).unwrap();
    let output = bench.finish(with_layer(&bench, &layer));
    assert_refused(&output, 125, &["short.erofs", "truncated"]);
}

#[test]
fn a_missing_layer_is_named() {
    let Some(bench) = Bench::new() else { return };
    let output = bench.finish(with_layer(&bench, "/nonexistent/l.erofs".as_ref()));
    assert_refused(&output, 125, &["/nonexistent/l.erofs", "No such file"]);
}

#[test]
fn a_missing_kernel_is_named_with_the_remedy() {
    let Some(bench) = Bench::new() else { return };
    let output = bench.finish(bench.vc(&["--kernel", "/nonexistent/vmlinux"], &["true"]));
    assert_refused(&output, 125, &["kernel", "/nonexistent/vmlinux", "`vc guest build`"]);
}

#[test]
fn a_kernel_that_is_none_ends_with_what_qemu_said() {
    let Some(bench) = Bench::new() else { return };
    let output = bench.finish(bench.vc(&["--kernel", "/etc/passwd"], &["true"]));
    assert_refused(&output, 125, &["QEMU", "kernel"]);
}

#[test]
fn a_missing_qemu_is_named_with_the_remedy() {
    let Some(bench) = Bench::new() else { return };
    let output = bench.finish(bench.vc(&["--qemu", "qemu-nonexistent"], &["true"]));
    assert_refused(&output, 125, &["qemu-nonexistent", "not found", "install QEMU"]);
}

#[test]
fn a_missing_vsock_daemon_is_named_with_the_remedy() {
    let Some(bench) = Bench::new() else { return };
    if fs::File::options().read(true).write(true).open("/dev/vhost-vsock").is_ok() {
        return vc_tests::skip("this host has /dev/vhost-vsock and needs no daemon");
    }
    let output = bench.finish(bench.vc(&["--vsock-program", "/nonexistent/daemon"], &["true"]));
    assert_refused(&output, 125, &["/nonexistent/daemon", "not found", "cargo install"]);
}

#[test]
fn kvm_without_the_right_to_it_is_refused_with_the_remedy() {
    let Some(bench) = Bench::unprivileged() else { return };
    let output = bench.finish(bench.vc(&["--accel", "kvm"], &["true"]));
    if output.status.success() {
        return vc_tests::skip("everybody may use KVM here");
    }
    assert_refused(&output, 125, &["KVM", "--accel tcg"]);
}

#[test]
fn an_unknown_command_is_127() {
    let Some(bench) = Bench::new() else { return };
    for command in ["frobnicate", "/bin/frobnicate", "./frobnicate"] {
        let output = bench.finish(bench.vc(&[], &[command]));
        assert_refused(&output, 127, &["frobnicate"]);
    }
}

#[test]
fn a_command_that_cannot_be_executed_is_126() {
    let Some(bench) = Bench::new() else { return };
    for command in ["/etc/not-executable", "/etc"] {
        let output = bench.finish(bench.vc(&[], &[command]));
        assert_refused(&output, 126, &[command]);
    }
}

#[test]
fn a_mount_that_is_no_json_is_a_usage_error() {
    let Some(bench) = Bench::new() else { return };
    let mut command = bench.bare();
    command.args(["--rootfs-mount", "lowerdir=/a", "--", "true"]);
    let output = bench.finish(command);
    assert_code(&output, 125);
    assert!(text(&output.stderr).contains("--rootfs-mount"), "{}", text(&output.stderr));
}

#[test]
fn what_cannot_reach_the_guest_is_refused_before_anything_starts() {
    let Some(bench) = Bench::new() else { return };
    let bundle = bench.layers.path().join("bound");
    fs::create_dir_all(&bundle).unwrap();
    for (mount, parts) in [
        (r#"{"destination": "/data", "type": "nfs", "source": "server:/data"}"#, ["/data", "nfs"]),
        (
            r#"{"destination": "/data", "type": "bind", "source": "/nonexistent/dir", "options": ["rbind"]}"#,
            ["/data", "there is no /nonexistent/dir"],
        ),
    ] {
        let config = format!(
            r#"{{"ociVersion": "1.0.2", "process": {{"args": ["true"], "cwd": "/", "user": {{"uid": 0, "gid": 0}}}}, "mounts": [{mount}]}}"#
        );
        fs::write(bundle.join("config.json"), config).unwrap();
        let mut command = bench.bare();
        command.arg("--bundle").arg(&bundle).arg("--layer").arg(&bench.busybox);
        assert_refused(&bench.finish(command), 125, &parts);
    }
}
