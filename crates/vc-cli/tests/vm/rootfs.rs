//! Root file systems: several layers, mounted or not, in the right order.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, mknod};
use vc_tests::{Layers, Mounted};

use crate::run::{Bench, assert_code, feed, text};
use crate::volumes::{Loop, with_root};

/// Writes what the merged root file system shows.
const SHOW: &str = "cat /etc/who; cat /etc/only-middle; test -e /etc/passwd || echo no passwd; \
                    echo x > /new && cat /new; ls /etc | tr '\\n' ' '";

const MERGED: &str = "top\nmiddle\nno passwd\nx\nnot-executable only-middle who ";

/// A layer in the middle that adds files, and one on top that replaces one and removes another.
fn three(layers: &Layers, busybox: &Path) -> Vec<PathBuf> {
    let middle = layers.layer("middle", |root| {
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/who"), "middle\n").unwrap();
        fs::write(root.join("etc/only-middle"), "middle\n").unwrap();
    });
    let top = layers.layer("top", |root| {
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/who"), "top\n").unwrap();
        // A whiteout: a character device 0/0 (kernel, Documentation/filesystems/overlayfs.rst).
        let whiteout = root.join("etc/passwd");
        mknod(&whiteout, SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
        assert!(fs::symlink_metadata(&whiteout).unwrap().file_type().is_char_device());
    });
    vec![top, middle, busybox.to_path_buf()]
}

#[test]
fn layers_are_merged_the_top_one_first() {
    if !vc_tests::root() {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    let mut command = bench.bare();
    for layer in three(&bench.layers, &bench.busybox) {
        command.arg("--layer").arg(layer);
    }
    command.args(["--", "sh", "-c", SHOW]);
    let output = bench.finish(command);
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), MERGED);
}

/// As of a snapshotter that has each layer on a device of its own. Five are too many for one disk each, were they files.
#[test]
fn layers_on_block_devices_of_the_host_are_merged() {
    if !vc_tests::root() {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    let names = |n: usize| {
        bench.layers.layer(&format!("plain{n}"), |root| fs::write(root.join("n"), n.to_string()).unwrap())
    };
    let devices: Vec<Loop> =
        (0..3).map(names).chain(three(&bench.layers, &bench.busybox)).map(|image| Loop::of(&image)).collect();
    let option = |device: &Loop| {
        let volume =
            serde_json::json!({"volume_type": "layer_raw_block", "source": device.0, "fs_type": "erofs"});
        format!("io.katacontainers.volume={}", base64(&volume.to_string()))
    };
    let options: Vec<String> = devices.iter().map(option).collect();
    let mount = serde_json::json!({"type": "overlay", "source": "overlay", "options": options});
    let output = with_root(&bench, &[mount], &format!("cat /n; echo; {SHOW}"));
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), format!("0\n{MERGED}"));
}

/// By the host's own program.
pub(crate) fn base64(what: &str) -> String {
    let mut command = std::process::Command::new("base64");
    command.arg("-w0");
    text(&feed(command, what.as_bytes()).stdout)
}

#[test]
fn layers_that_a_snapshotter_mounted_are_found() {
    if !vc_tests::root() {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    let mut mounted = Mounted::default();
    let mut lower = Vec::new();
    for (number, layer) in three(&bench.layers, &bench.busybox).iter().enumerate() {
        // Characters that mount tables and overlay options escape.
        let at = bench.layers.path().join(format!("snap shots/{number}:a"));
        // One of the three without a loop device, where the kernel can.
        if number != 1 || !mounted.as_file(layer, &at) {
            mounted.by_loop(layer, &at);
        }
        lower.push(at.to_str().unwrap().replace(':', "\\:"));
    }
    let options = [format!("lowerdir={}", lower.join(":")), "upperdir=/nonexistent/fs".to_owned()];
    let mount = serde_json::json!({"type": "overlay", "source": "overlay", "options": options});
    let mut command = bench.bare();
    command.arg("--rootfs-mount").arg(mount.to_string()).args(["--", "sh", "-c", SHOW]);
    let output = bench.finish(command);
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), MERGED);
}

/// As containerd's mount manager hands it to a runtime that declares `format/*`, `mkdir/*` and `erofs`.
#[test]
fn a_list_of_mounts_is_merged_as_its_templates_have_it() {
    if !vc_tests::root() {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    let mut command = bench.bare();
    for layer in three(&bench.layers, &bench.busybox) {
        let mount = serde_json::json!({"type": "erofs", "source": layer, "options": ["ro", "loop"]});
        command.arg("--rootfs-mount").arg(mount.to_string());
    }
    let options =
        ["workdir=/nonexistent/work", "upperdir=/nonexistent/fs", "lowerdir={{ mount 0 }}:{{ overlay 1 2 }}"];
    let overlay =
        serde_json::json!({"type": "format/mkdir/overlay", "source": "overlay", "options": options});
    command.arg("--rootfs-mount").arg(overlay.to_string()).args(["--", "sh", "-c", SHOW]);
    let output = bench.finish(command);
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), MERGED);
}

/// Layers that were merged: one image has the metadata, and each blob the data of a layer. As containerd's
/// snapshotter hands over a view of them, and one with a layer above.
#[test]
fn metadata_and_its_blobs_are_one_layer() {
    if !vc_tests::root() {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    let (metadata, blobs) = bench.layers.layer_with_blobs("merged", |root| {
        vc_tests::fill_with_busybox(root);
        fs::write(root.join("etc/large"), vec![b'x'; 3 << 20]).unwrap();
    });
    let blobs: Vec<_> = blobs.iter().map(|blob| format!("device={}", blob.display())).collect();
    let options: Vec<&str> = ["ro", "loop"].into_iter().chain(blobs.iter().map(String::as_str)).collect();
    let merged = serde_json::json!({"type": "erofs", "source": metadata, "options": options});
    let show = "sha256sum /etc/large /bin/busybox | cut -d' ' -f1; cat /etc/passwd; cat /etc/who";
    let sums = std::process::Command::new("sha256sum")
        .args([bench.layers.path().join("merged.tree/etc/large"), "/bin/busybox".into()])
        .output()
        .unwrap();
    let sums: String = text(&sums.stdout).lines().map(|line| format!("{}\n", &line[..64])).collect();

    let view =
        serde_json::json!({"type": "format/bind", "source": "{{ mount 0 }}", "options": ["ro", "rbind"]});
    let mut command = bench.bare();
    command.arg("--rootfs-mount").arg(merged.to_string()).arg("--rootfs-mount").arg(view.to_string());
    command.args(["--", "sh", "-c", show]);
    let output = bench.finish(command);
    assert_eq!(
        text(&output.stdout),
        format!("{sums}root:x:0:0:root:/:/bin/sh\n"),
        "{}",
        text(&output.stderr)
    );

    let above = &three(&bench.layers, &bench.busybox)[..2];
    let mut command = bench.bare();
    for layer in above {
        let mount = serde_json::json!({"type": "erofs", "source": layer, "options": ["ro", "loop"]});
        command.arg("--rootfs-mount").arg(mount.to_string());
    }
    let overlay = serde_json::json!({"type": "format/mkdir/overlay", "source": "overlay", "options": [
        "workdir=/nonexistent/work", "upperdir=/nonexistent/fs", "lowerdir={{ overlay 0 2 }}"]});
    command.arg("--rootfs-mount").arg(merged.to_string()).arg("--rootfs-mount").arg(overlay.to_string());
    command.args(["--", "sh", "-c", show]);
    let output = bench.finish(command);
    assert_eq!(text(&output.stdout), format!("{sums}top\n"), "{}", text(&output.stderr));
}

#[test]
fn a_bundle_brings_command_environment_and_directory() {
    let Some(bench) = Bench::new() else { return };
    let bundle = bench.layers.path().join("bundle");
    fs::create_dir(&bundle).unwrap();
    let config = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": ["sh", "-c", "echo $COLOR; pwd; cat /proc/self/mounts | grep -c '^proc /proc'; touch /x"],
            "env": ["PATH=/bin", "COLOR=green"],
            "cwd": "/etc",
            "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]}
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]}
    });
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let mut command = bench.bare();
    command.arg("--bundle").arg(&bundle).arg("--layer").arg(&bench.busybox);
    let output = bench.finish(command);
    assert_code(&output, 1);
    assert_eq!(text(&output.stdout), "green\n/etc\n1\n");
    assert!(text(&output.stderr).contains("Read-only file system"), "{}", text(&output.stderr));
}
