//! What `vc guest build` refuses before anything is built, and what it says then.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An installed `vc`, with nothing beside it, and an image.
struct Installed {
    dir: tempfile::TempDir,
    vc: PathBuf,
}

const FILES: [&str; 3] = ["vmlinux", "initrd", "manifest.json"];

impl Installed {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for name in ["bin", "guest", "cache"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        for name in FILES {
            fs::write(dir.path().join("guest").join(name), "old").unwrap();
        }
        let vc = dir.path().join("bin/vc");
        // Not a copy: a child of another thread may still have that open for writing, and then it cannot be executed.
        fs::hard_link(env!("CARGO_BIN_EXE_vc"), &vc).unwrap();
        Self { dir, vc }
    }

    fn build(&self, options: &[&str]) -> Command {
        let mut command = Command::new(&self.vc);
        command.args(["guest", "build"]).args(options).env_remove("VC_GUEST");
        command.env("XDG_CACHE_HOME", self.dir.path().join("cache"));
        command
    }

    /// Asserts the exit code, one line with each of `parts`, and that the image is as it was.
    #[track_caller]
    fn assert_refused(&self, mut command: Command, parts: &[&str]) {
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("vc: ") && said.lines().count() == 1, "one line: {said:?}");
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
        for name in FILES {
            assert_eq!(fs::read_to_string(self.dir.path().join("guest").join(name)).unwrap(), "old");
        }
    }
}

#[test]
fn without_an_agent_it_says_where_one_should_be() {
    if ["/usr/local/lib/vc/vc-guest", "/usr/lib/vc/vc-guest"].iter().any(|agent| Path::new(agent).exists()) {
        return vc_tests::skip("this host has an agent installed");
    }
    let installed = Installed::new();
    let bin = installed.dir.path().join("bin");
    let build = || installed.build(&["--kernel", "/nonexistent"]);
    installed.assert_refused(build(), &["no vc-guest in", bin.to_str().unwrap(), "/usr/lib/vc", "--agent"]);
    // The one beside `vc` is taken; it is dynamic.
    let agent = bin.join("vc-guest");
    fs::copy(&installed.vc, &agent).unwrap();
    let kernel = installed.build(&["--kernel", "/etc/passwd"]);
    installed.assert_refused(kernel, &[agent.to_str().unwrap(), "cannot be /init", "not static", "--agent"]);
    fs::write(&agent, "#!/bin/sh\n").unwrap();
    installed.assert_refused(build(), &["/nonexistent", "No such file"]);
    let script = installed.build(&["--kernel", "/etc/passwd"]);
    installed.assert_refused(script, &[agent.to_str().unwrap(), "not an ELF file", "--agent"]);
}

#[test]
fn without_apt_it_says_what_to_name() {
    let installed = Installed::new();
    let mut command = installed.build(&["--agent", "/bin/true"]);
    command.env("PATH", installed.dir.path());
    installed.assert_refused(command, &["no apt-get", "kernel package", "--kernel and --modules"]);
}

#[test]
fn what_cannot_be_used_is_named() {
    let installed = Installed::new();
    let busybox = vc_image::command::find("busybox").unwrap();
    let busybox = busybox.to_str().unwrap();
    let kernel = installed.build(&["--kernel", "/etc/passwd", "--agent", busybox]);
    installed.assert_refused(kernel, &["could not use the kernel /etc/passwd", "neither an ELF file"]);
    assert!(
        installed.dir.path().join("guest/.lock").exists(),
        "the image that `vc` finds is the one to be made"
    );
    let out = installed.build(&["--kernel", "/etc/passwd", "--agent", busybox, "--out", "/etc/passwd/x"]);
    installed.assert_refused(out, &["/etc/passwd/x", "Not a directory"]);
    let modules = installed.build(&["--modules", "/lib/modules"]).output().unwrap();
    assert_eq!(modules.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&modules.stderr).contains("--kernel <FILE>"),
        "modules need their kernel"
    );
}
