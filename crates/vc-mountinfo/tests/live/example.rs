//! The example `backing`, as a program: what it prints of real mounts, as JSON and as text.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::images::{self, Loop, mount_file};
use crate::world::{in_private_world, skip};

/// Runs it in the mount namespace of this thread.
fn backing(arguments: &[&Path]) -> Output {
    // Cargo builds examples beside the directory of the test programs.
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples/backing");
    if !program.exists() {
        skip(
            "needs the example, which is built with all tests of the crate, not with one test program alone",
        );
    }
    Command::new(program).args(arguments).output().unwrap()
}

#[test]
fn json_tells_mounts_loop_devices_images_and_layers() {
    in_private_world(|world| {
        world.tmpfs("m/a", "under");
        let over = world.tmpfs("m/a", "over");
        let odd = world.dir(Path::new("m").join(OsStr::from_bytes(b"odd \xff")));
        mount(Some("odd"), &odd, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let image = images::make(world, "by-file.erofs");
        let by_file = world.path("m/by-file");
        mount_file(&image, &by_file, None);
        let looped = images::make(world, "by-loop.erofs");
        let by_loop = world.path("m/by-loop");
        let device = Loop::attach(&looped);
        device.mount(&by_loop);
        let rootfs = world.dir("m/rootfs");
        let options = format!("lowerdir={}:{}", by_file.display(), by_loop.display());
        mount(Some("overlay"), &rootfs, Some("overlay"), MsFlags::empty(), Some(&*options)).unwrap();
        let missing = world.path("m/missing");

        let arguments = ["--json".as_ref(), &*over, &odd, &by_file, &by_loop, &rootfs, &missing];
        let output = backing(&arguments);
        assert!(!output.status.success(), "one path is missing");
        let answers: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answers[0]["source"], "over");
        assert_eq!(answers[0]["mount_point"], json!(over));
        assert_eq!(answers[1]["path"], json!(odd.as_os_str().as_bytes()), "not UTF-8, so bytes");
        assert_eq!((&answers[2]["file"], &answers[2]["via"]), (&json!(image), &json!("file")));
        assert_eq!((&answers[3]["file"], &answers[3]["via"]), (&json!(looped), &json!(device.path())));
        let layers = answers[4]["layers"].as_array().unwrap();
        let files: Vec<_> = layers.iter().map(|layer| &layer["file"]).collect();
        assert_eq!(files, [&json!(image), &json!(looped)]);
        assert!(answers[5]["error"].as_str().unwrap().contains("No such file"), "{}", answers[5]);
    });
}

#[test]
fn text_has_a_line_for_each_fact() {
    in_private_world(|world| {
        let at = world.tmpfs("m/a", "a source");
        let output = backing(&[&at]);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        for line in ["source: a source", "type: tmpfs", &format!("mount_point: {}", at.display())] {
            assert!(text.lines().any(|found| found == line), "{line:?} in {text}");
        }
        assert_eq!(text.lines().next(), Some(format!("path: {}", at.display()).as_str()));
        assert_eq!(backing(&[]).status.code(), Some(2), "no path is a wrong call");
        let help = backing(&[Path::new("--help")]);
        assert_eq!(help.status.code(), Some(2));
        assert!(help.stderr.starts_with(b"usage: backing"), "{help:?}");
    });
}
