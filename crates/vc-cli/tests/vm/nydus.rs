//! Roots of nydus-snapshotter: an image that nydusd serves, and a snapshot that is written to.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use vc_tests::{Nydus, Rafs, fill_with_busybox};

use crate::rootfs::base64;
use crate::run::{Bench, assert_code, text};

/// As the snapshotter hands over a root.
fn mount(image: &Rafs, snapshot: &Path) -> String {
    let extra =
        serde_json::json!({"source": image.bootstrap, "config": image.config, "snapshotdir": snapshot});
    let options = [
        format!("lowerdir={}", snapshot.join("mnt").display()),
        format!("upperdir={}", snapshot.join("fs").display()),
        format!("workdir={}", snapshot.join("work").display()),
        format!("extraoption={}", base64(&extra.to_string())),
    ];
    let mount = serde_json::json!({"type": "fuse.nydus-overlayfs", "source": "overlay", "options": options});
    mount.to_string()
}

#[test]
fn a_root_that_nydusd_serves_is_read_from_its_image_and_written_to_its_snapshot() {
    if !vc_tests::root() {
        return;
    }
    let Some(nydus) = Nydus::find() else { return };
    let Some(bench) = Bench::new() else { return };
    let path = |name: &str| bench.layers.path().join(name);
    let tree = path("tree");
    fs::create_dir(&tree).unwrap();
    fill_with_busybox(&tree);
    let large: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::create_dir_all(tree.join("data/full")).unwrap();
    fs::write(tree.join("data/large"), &large).unwrap();
    fs::write(tree.join("data/full/of-the-image"), "").unwrap();
    fs::write(tree.join("data/gone"), "").unwrap();
    let image = nydus.image(&tree, &path("image"));
    for directory in ["fs", "work"] {
        fs::create_dir_all(path("snapshot").join(directory)).unwrap();
    }
    // A directory that is made anew hides the image's only by an attribute that nydusd has to be able to write.
    let script = "wc -c < /data/large; cd /data; cp large copy; echo new > new; chown 12:34 new; rm gone; \
                  rm -r full; mkdir full; ls -A full; ls; id -u";
    let mut run = bench.bare();
    run.env("VC_SHARED_FS", "virtio-fs-nydus").env("VC_VIRTIO_FS_DAEMON", &nydus.nydusd);
    run.arg("--rootfs-mount").arg(mount(&image, &path("snapshot"))).args(["--", "sh", "-c", script]);
    let output = bench.finish(run);
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "1200000\ncopy\nfull\nlarge\nnew\n0\n");

    let written = |name: &str| path("snapshot/fs/data").join(name);
    assert_eq!(fs::read(written("copy")).unwrap(), large);
    let new = written("new").metadata().unwrap();
    assert_eq!(
        (fs::read_to_string(written("new")).unwrap().as_str(), new.uid(), new.gid()),
        ("new\n", 12, 34)
    );
    assert!(written("gone").symlink_metadata().unwrap().file_type().is_char_device(), "a whiteout");
    assert!(!written("large").exists(), "it was only read");
    // What was written is there for the next one, and nothing of the image has changed.
    let mut again = bench.bare();
    again.env("VC_SHARED_FS", "virtio-fs-nydus").env("VC_VIRTIO_FS_DAEMON", &nydus.nydusd);
    again.arg("--rootfs-mount").arg(mount(&image, &path("snapshot")));
    again.args(["--", "sh", "-c", "cd /data; cmp large copy && ls -A full; ls"]);
    let output = bench.finish(again);
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "copy\nfull\nlarge\nnew\n");
}

#[test]
fn a_root_of_nydus_without_nydusd_is_refused_by_what_is_missing() {
    if !vc_tests::root() {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    let snapshot = bench.layers.path().join("snapshot");
    fs::create_dir(&snapshot).unwrap();
    let image = Rafs { bootstrap: bench.layers.path().join("bootstrap"), config: "{}".into() };
    for (shared_fs, says) in [
        ("virtio-fs", "shared_fs must be virtio-fs-nydus; here it is virtio-fs"),
        ("none", "shared_fs must be virtio-fs-nydus; here it is none"),
        ("virtio-fs-nydus", "cannot run \"/nonexistent/nydusd\""),
    ] {
        let mut run = bench.bare();
        run.env("VC_SHARED_FS", shared_fs).env("VC_VIRTIO_FS_DAEMON", "/nonexistent/nydusd");
        run.arg("--rootfs-mount").arg(mount(&image, &snapshot)).args(["--", "true"]);
        let output = bench.finish(run);
        assert_code(&output, 125);
        assert!(text(&output.stderr).contains(says), "{}", text(&output.stderr));
    }
}
