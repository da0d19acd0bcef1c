//! `vc explain`: what it says, and that it changes nothing.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use vc_tests::{Layers, Mounted};

fn explain(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vc")).arg("explain").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn plan(arguments: &[&str]) -> String {
    let output = explain(arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn bundle(layers: &Layers, mounts: &serde_json::Value) -> String {
    let bundle = layers.path().join("bundle");
    fs::create_dir_all(bundle.join("rootfs")).unwrap();
    let config = serde_json::json!({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "mounts": mounts});
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    bundle.to_str().unwrap().to_owned()
}

/// The table of mounts, and everything below a directory.
fn world(path: &Path) -> (String, Vec<String>) {
    let found = Command::new("find").arg(path).args(["-printf", "%p %i %T@ %s\n"]).output().unwrap();
    let mut files: Vec<_> = text(&found.stdout).lines().map(str::to_owned).collect();
    files.sort();
    (fs::read_to_string("/proc/self/mountinfo").unwrap(), files)
}

#[test]
fn a_bundle_and_layers_become_a_tree_and_nothing_is_changed() {
    let layers = Layers::new();
    let layer = layers.layer("top", |root| fs::write(root.join("a"), "a").unwrap());
    let data = layers.path().join("da ta");
    fs::create_dir(&data).unwrap();
    let link = layers.path().join("link");
    std::os::unix::fs::symlink("/proc", &link).unwrap();
    let mounts = serde_json::json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/data", "type": "bind", "source": data, "options": ["rbind", "ro"]},
        {"destination": "/p", "type": "bind", "source": link, "options": ["rbind"]},
    ]);
    let bundle = bundle(&layers, &mounts);
    let before = world(layers.path());
    let layer = layer.to_str().unwrap();
    let tree = plan(&["--bundle", &bundle, "--layer", layer]);
    for part in [
        "container container",
        &format!("plug disk 0 (read-only): {layer}"),
        &format!("share {} as container-1-data (read-only, with the mounts below it)", data.display()),
        "because it is no bind mount: the guest's kernel makes it",
        "/p: in the guest",
    ] {
        assert!(tree.contains(part), "{part:?} is not in\n{tree}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&plan(&["--json", "--bundle", &bundle, "--layer", layer])).unwrap();
    assert_eq!((json["layers"].as_u64(), json["mounts"].as_array().map(Vec::len)), (Some(1), Some(3)));
    let copied = plan(&["--no-shared-fs", "--bundle", &bundle, "--layer", layer]);
    assert!(copied.contains(&format!("copy {}", data.display())), "{copied}");
    assert_eq!(world(layers.path()), before);
}

#[test]
fn a_mounted_disk_of_the_host_is_refused_with_the_reason() {
    if !vc_tests::root() {
        return;
    }
    let layers = Layers::new();
    let image = layers.layer("image", |root| fs::write(root.join("a"), "a").unwrap());
    let mut mounted = Mounted::default();
    let at = layers.path().join("mounted");
    mounted.by_loop(&image, &at);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(at.to_str().unwrap())).unwrap();
    let device = line.split(" - erofs ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let mount = serde_json::json!({"type": "ext4", "source": device, "options": ["rw"]}).to_string();
    let output = explain(&["--rootfs-mount", &mount]);
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    for part in [device, "is mounted at", at.to_str().unwrap(), "unmount it first"] {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
    assert!(output.stdout.is_empty());
    // Its file, as an image to write to, is refused as well: a loop device of the host has it.
    let image = serde_json::json!({"type": "ext4", "source": image, "options": ["rw"]}).to_string();
    let output = explain(&["--rootfs-mount", &image]);
    assert!(text(&output.stderr).contains("is attached to /dev/loop"), "{}", text(&output.stderr));
    // And the directory is what it is: layers, since an EROFS image is mounted there.
    let bundle = bundle(&layers, &serde_json::json!([]));
    mounted.by_loop(&layers.path().join("image.erofs"), &Path::new(&bundle).join("rootfs"));
    assert!(plan(&["--bundle", &bundle]).contains("root file system: layers"));
}

#[test]
fn a_directory_is_shared_and_says_what_it_is_never_taken_for() {
    let layers = Layers::new();
    let bundle = bundle(&layers, &serde_json::json!([]));
    let tree = plan(&["--bundle", &bundle]);
    assert!(tree.contains("root file system: shared"), "{tree}");
    assert!(tree.contains("no device is ever guessed from where a directory is"), "{tree}");
}

#[test]
fn a_malformed_volume_of_a_csi_driver_is_an_error() {
    let layers = Layers::new();
    let layer = layers.layer("top", |root| fs::write(root.join("a"), "a").unwrap());
    let volume = layers.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let mounts =
        serde_json::json!([{"destination": "/data", "type": "bind", "source": volume, "options": ["rbind"]}]);
    let bundle = bundle(&layers, &mounts);
    let store = layers.path().join("direct-volumes");
    let volumes = vc_storage::DirectVolumes::below(&store);
    let path = vc_types::HostPath::new(&volume).unwrap();
    volumes.add(&path, br#"{"volume-type": "block", "device": "/nonexistent", "fstype": "ext4"}"#).unwrap();
    let of_store = || {
        let store = store.to_str().unwrap();
        explain(&["--direct-volumes", store, "--bundle", &bundle, "--layer", layer.to_str().unwrap()])
    };
    let absent = of_store();
    assert!(
        text(&absent.stderr).contains("/nonexistent is to be plugged as a disk"),
        "{}",
        text(&absent.stderr)
    );
    let info = fs::read_dir(&store).unwrap().next().unwrap().unwrap().path().join("mountInfo.json");
    fs::write(info, "{").unwrap();
    let malformed = of_store();
    assert_eq!(malformed.status.code(), Some(125));
    assert!(text(&malformed.stderr).contains("mountInfo.json is malformed"), "{}", text(&malformed.stderr));
}

/// What is to be configured for it is told, and with that the plan.
#[test]
fn a_root_of_nydus_is_explained_by_the_configuration() {
    // {"source": "/usr/image.boot", "config": "{}", "snapshotdir": "/usr"}
    let extra =
        "extraoption=eyJzb3VyY2UiOiIvdXNyL2ltYWdlLmJvb3QiLCJjb25maWciOiJ7fSIsInNuYXBzaG90ZGlyIjoiL3VzciJ9";
    let mount = serde_json::json!({"type": "fuse.nydus-overlayfs", "source": "overlay", "options": [extra]})
        .to_string();
    let explain = |shared_fs: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vc"));
        let set = format!("hypervisor.qemu.shared_fs={shared_fs}");
        command.args(["--set", &set, "explain", "--rootfs-mount", &mount]).output().unwrap()
    };
    let refused = explain("virtio-fs");
    assert!(!refused.status.success());
    let said = text(&refused.stderr);
    assert!(said.contains("shared_fs must be virtio-fs-nydus; here it is virtio-fs"), "{said}");
    let planned = explain("virtio-fs-nydus");
    let tree = text(&planned.stdout);
    let target = "/run/kata-containers/shared/rafs/container/lowerdir";
    for part in [&format!("ask nydusd to mount /usr/image.boot at {target}"), &format!("lowerdir={target}")] {
        assert!(tree.contains(part.as_str()), "{tree} {}", text(&planned.stderr));
    }
}
