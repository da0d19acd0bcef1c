//! `vc guest build`, and a machine that starts from what it built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::run::{Bench, assert_code, spawn, text};

/// What the guest image at hand was made of.
#[derive(Clone)]
struct Parts {
    kernel: PathBuf,
    modules: PathBuf,
    agent: PathBuf,
}

impl Parts {
    /// `None`, with the reason printed, when that image cannot be taken apart.
    fn of(bench: &Bench) -> Option<Self> {
        let initrd = bench.guest.join("initrd");
        if !fs::read(&initrd).unwrap().starts_with(b"070701") {
            vc_tests::skip("the guest image at hand is compressed");
            return None;
        }
        let dir = bench.layers.path().join("parts");
        fs::create_dir(&dir).unwrap();
        // Without its devices, which only root may make.
        let mut cpio = Command::new("busybox");
        cpio.args(["cpio", "-id", "-F"]).arg(&initrd).args(["init", "lib/modules/*"]).current_dir(&dir);
        assert_code(&cpio.output().unwrap(), 0);
        Some(Self {
            kernel: bench.guest.join("vmlinux"),
            modules: dir.join("lib/modules"),
            agent: dir.join("init"),
        })
    }

    /// `vc guest build` of them, where `vc` looks for the image.
    fn build(&self, bench: &Bench, out: &Path) -> Command {
        let mut command = bench.program();
        command.args(["guest", "build", "--kernel"]).arg(&self.kernel).env("VC_GUEST", out);
        command.arg("--modules").arg(&self.modules).arg("--agent").arg(&self.agent);
        command
    }
}

const FILES: [&str; 3] = ["vmlinux", "initrd", "manifest.json"];

fn image(directory: &Path) -> [Vec<u8>; 3] {
    FILES.map(|name| fs::read(directory.join(name)).unwrap())
}

fn manifest(directory: &Path) -> Value {
    serde_json::from_slice(&fs::read(directory.join("manifest.json")).unwrap()).unwrap()
}

#[test]
fn an_image_of_the_parts_of_another_is_the_same_and_starts() {
    let Some(bench) = Bench::new() else { return };
    let Some(parts) = Parts::of(&bench) else { return };
    let out = bench.layers.path().join("image");
    let output = bench.finish(parts.build(&bench, &out));
    assert_code(&output, 0);
    assert!(text(&output.stdout).ends_with("image is built\n"), "{}", text(&output.stdout));
    for name in ["vmlinux", "initrd"] {
        let is_same = fs::read(out.join(name)).unwrap() == fs::read(bench.guest.join(name)).unwrap();
        assert!(is_same, "{name} is the same");
    }
    let again = bench.finish(parts.build(&bench, &out));
    assert!(text(&again.stdout).ends_with("image is up to date\n"), "{}", text(&again.stdout));

    let mut compressed = parts.build(&bench, &out);
    compressed.arg("--compress");
    assert_code(&bench.finish(compressed), 0);
    let size = fs::metadata(out.join("initrd")).unwrap().len();
    assert!(size < fs::metadata(bench.guest.join("initrd")).unwrap().len());
    let output = bench.finish(bench.vc(&["--guest", out.to_str().unwrap()], &["uname", "-r"]));
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout).trim_end(), manifest(&out)["kernel"]["release"]);
}

#[test]
fn what_is_refused_leaves_the_image_that_is_there() {
    let Some(bench) = Bench::new() else { return };
    let Some(parts) = Parts::of(&bench) else { return };
    let out = bench.layers.path().join("image");
    assert_code(&bench.finish(parts.build(&bench, &out)), 0);
    let before = image(&out);
    let refused = |parts: &Parts, said: &str| {
        let output: Output = bench.finish(parts.build(&bench, &out));
        assert_code(&output, 1);
        let line = text(&output.stderr);
        assert!(line.starts_with("vc: could not build the guest image: ") && line.contains(said), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(image(&out) == before, "the image is as it was: {said}");
    };

    let cut_short = bench.layers.path().join("cut-short");
    fs::write(&cut_short, &before[0][..1 << 20]).unwrap();
    refused(&Parts { kernel: cut_short, ..parts.clone() }, "could not use the kernel");
    let dynamic = PathBuf::from(env!("CARGO_BIN_EXE_vc"));
    refused(
        &Parts { agent: dynamic, ..parts.clone() },
        "it is not static; name a static vc-guest with --agent",
    );
    let empty = bench.layers.path().to_owned();
    refused(&Parts { modules: empty, ..parts.clone() }, "modules.builtin");
    // Only those of a kernel that has everything built in work with another kernel.
    if fs::read(parts.modules.join("modules.boot")).unwrap().is_empty() {
        return vc_tests::skip("the kernel at hand has no modules");
    }
    let another = bench.layers.path().join("another");
    let release = manifest(&out)["kernel"]["release"].as_str().unwrap().to_owned();
    fs::write(&another, renamed(&before[0], &release)).unwrap();
    refused(
        &Parts { kernel: another, ..parts },
        &format!("it is built for kernel {release}, the kernel is 0"),
    );
}

/// The kernel, calling itself a release that begins with 0.
fn renamed(vmlinux: &[u8], release: &str) -> Vec<u8> {
    let banner = format!("Linux version {release} ");
    let mut vmlinux = vmlinux.to_vec();
    let places = vmlinux.windows(banner.len()).enumerate().filter(|(_, part)| *part == banner.as_bytes());
    for at in places.map(|(at, _)| at).collect::<Vec<_>>() {
        vmlinux[at + "Linux version ".len()] = b'0';
    }
    vmlinux
}

#[test]
fn two_at_once_do_not_disturb_each_other() {
    let Some(bench) = Bench::new() else { return };
    let Some(parts) = Parts::of(&bench) else { return };
    let out = bench.layers.path().join("image");
    let children = [&[][..], &["--compress"], &[], &["--compress"]].map(|options: &[&str]| {
        let mut command = parts.build(&bench, &out);
        command.args(options);
        spawn(command)
    });
    for child in children {
        assert_code(&child.wait_with_output().unwrap(), 0);
    }
    let manifest = manifest(&out);
    for name in ["vmlinux", "initrd"] {
        let sum = vc_image::sha256(&fs::read(out.join(name)).unwrap());
        assert_eq!(manifest[name]["sha256"], sum, "{name} is that of the manifest");
    }
    let mut names: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".lock", ".stamp", "initrd", "manifest.json", "vmlinux"]);
}
