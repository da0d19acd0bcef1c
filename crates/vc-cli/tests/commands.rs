//! Commands that need no machine.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::path::Path;
use std::process::{Command, Output};

fn vc(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vc"));
    command.args(arguments).env_remove("VC_GUEST").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_specification_is_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().to_str().unwrap();
    assert!(vc(&["spec", "--bundle", bundle]).status.success());
    let spec = oci_spec::runtime::Spec::load(dir.path().join("config.json")).unwrap();
    assert_eq!(spec.root().as_ref().unwrap().path(), Path::new("rootfs"));
    let again = vc(&["spec", "--bundle", bundle]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("move away what is there"), "{}", text(&again.stderr));
}

#[test]
fn the_features_are_those_of_the_specification() {
    let output = vc(&["features"]);
    assert!(output.status.success());
    let features: oci_spec::runtime::Features = serde_json::from_slice(&output.stdout).unwrap();
    assert!(features.hooks().as_ref().unwrap().contains(&"poststop".to_owned()));
    let linux = features.linux().as_ref().unwrap();
    assert_eq!(
        linux.capabilities().as_ref().unwrap().len(),
        41,
        "each is known to the specification's types"
    );
    assert_eq!(linux.seccomp().as_ref().unwrap().actions().as_ref().unwrap().len(), 8);
}

#[test]
fn what_a_host_lacks_is_told_with_the_remedy() {
    let output = vc(&["check", "--qemu", "qemu-nonexistent", "--guest", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    let line = |what: &str| said.lines().find(|line| line.contains(what)).unwrap().to_owned();
    assert!(line("QEMU").starts_with("missing") && line("QEMU").contains("apt-get install"), "{said}");
    assert!(
        line("guest image").starts_with("missing") && line("guest image").contains("`vc guest build`"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 4, "{said}");
}

#[test]
fn what_is_not_there_is_said_with_the_exit_codes_of_runc() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("state");
    let run = |line: &[&str]| vc(&[&["--root", root.to_str().unwrap()], line].concat());
    for (line, code) in [
        (&["state", "x"][..], 1),
        (&["start", "x"], 1),
        (&["kill", "x"], 1),
        (&["delete", "x"], 1),
        (&["pause", "x"], 1),
        (&["events", "x"], 1),
        (&["stats", "x"], 1),
        (&["exec", "x", "true"], 255),
        (&["ps", "x"], 255),
    ] {
        let output = run(line);
        assert_eq!(output.status.code(), Some(code), "{line:?}");
        assert_eq!(text(&output.stderr), "vc: container x does not exist\n", "{line:?}");
    }
    assert!(run(&["delete", "--force", "x"]).status.success());
    assert_eq!(text(&run(&["list", "--format", "json"]).stdout), "[]\n");
    assert!(!root.exists(), "looking makes nothing");
    assert_eq!(run(&["state", "../x"]).status.code(), Some(1), "an id is a file name");
    assert_eq!(run(&["frobnicate"]).status.code(), Some(1));
}

#[test]
fn a_member_of_a_pod_that_is_not_there_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (root, bundle) = (dir.path().join("state"), dir.path().to_str().unwrap());
    let config = serde_json::json!({
        "ociVersion": "1.2.0", "process": {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "annotations": {"io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.SandboxID": "pod"},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/7/ns/net"}]},
    });
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let output = vc(&["--root", root.to_str().unwrap(), "create", "--bundle", bundle, "member"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "vc: container pod does not exist\n");
    assert!(!root.exists());
}

#[test]
fn pages_and_completions_know_the_commands() {
    let page = text(&vc(&["man"]).stdout);
    assert!(page.contains(".SH SUBCOMMANDS") && page.contains("vc\\-create"), "{page}");
    let page = text(&vc(&["man", "create"]).stdout);
    assert!(page.contains("console\\-socket"), "{page}");
    let page = text(&vc(&["man", "guest", "build"]).stdout);
    assert!(
        page.starts_with(".ie") && page.contains(".TH vc-guest-build") && page.contains("compress"),
        "{page}"
    );
    assert_eq!(vc(&["man", "frobnicate"]).status.code(), Some(1));
    assert_eq!(vc(&["man", "guest", "frobnicate"]).status.code(), Some(1));
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&vc(&["completions", shell]).stdout).contains("console-socket"), "{shell}");
    }
}

#[test]
fn a_container_with_a_name_is_as_its_bundle_says() {
    let refused = |line: &[&str], why: &str| {
        let output = vc(line);
        assert_eq!(output.status.code(), Some(1), "{line:?}");
        assert!(text(&output.stderr).contains(why), "{line:?}: {}", text(&output.stderr));
    };
    refused(&["run", "-b", "/b", "c", "true"], "one argument");
    refused(&["run", "-b", "/b", "--detach"], "one argument");
    refused(&["run", "-b", "/b", "-t", "c"], "--tty is for a command");
    refused(&["run", "-b", "/b", "-d", "-l", "/layer", "c"], "--layer is for a command");
    refused(&["run", "-b", "/b", "a/b"], "use the name a/b");
    refused(&["run", "-b", "/nonexistent", "c"], "/nonexistent");
}

#[test]
fn the_help_fits_a_screen() {
    for line in [
        &["-h"][..],
        &["create", "-h"],
        &["guest", "build", "-h"],
        &["exec", "-h"],
        &["update", "-h"],
        &["run", "-h"],
    ] {
        let output = vc(line);
        assert!(output.status.success());
        assert!(text(&output.stdout).lines().count() <= 40, "{line:?}:\n{}", text(&output.stdout));
    }
}

/// Where volumes are is fixed, so this needs root; a volume that is found goes again.
#[test]
fn a_volume_is_left_to_the_runtime_and_taken_back() {
    if !vc_tests::root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (root, volume) = (dir.path().join("state"), dir.path().join("volume"));
    let (root, volume) = (root.to_str().unwrap(), volume.to_str().unwrap());
    let run = |what: &str, more: &[&str]| {
        vc(&[&["--root", root, "direct-volume", what, "--volume-path", volume], more].concat())
    };
    let said = |output: &Output| (output.status.code(), text(&output.stderr));
    let bad =
        run("add", &["--mount-info", r#"{"volume-type": "nfs", "device": "/dev/x", "fstype": "ext4"}"#]);
    let (code, why) = said(&bad);
    assert!(code == Some(1) && why.contains("\"nfs\"; only block is known"), "{why}");
    let info = r#"{"volume-type": "block", "device": "/dev/x", "fstype": "ext4"}"#;
    assert_eq!(said(&run("add", &["--mount-info", info])), (Some(0), String::new()));
    let unused = format!("vc: no container uses the volume {volume}\n");
    assert_eq!(said(&run("stats", &[])), (Some(1), unused.clone()));
    assert_eq!(said(&run("resize", &["--size", "4096"])), (Some(1), unused));
    assert_eq!(said(&run("resize", &["--size", "4k"])).0, Some(1));
    let volumes = vc_storage::DirectVolumes::default();
    let path = vc_types::HostPath::new(volume).unwrap();
    volumes.record(&path, &"gone".parse().unwrap()).unwrap();
    assert_eq!(said(&run("stats", &[])), (Some(1), "vc: container gone does not exist\n".into()));
    for _ in 0..2 {
        assert_eq!(said(&run("remove", &[])), (Some(0), String::new()));
    }
    assert_eq!(volumes.find(&path).unwrap(), None);
    // Where it was, if nobody else has one.
    for directory in volumes.root().ancestors().take(3) {
        let _ = std::fs::remove_dir(directory);
    }
}
