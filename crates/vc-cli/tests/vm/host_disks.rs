//! Disks of the host as roots: those of device mapper, and none that the host uses at that time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vc_tests::{Mounted, host};

use crate::run::{Bench, assert_code, text};
use crate::volumes::{Verified, busybox_tree, ext4, with_root};

/// Runs a program of the host; returns what it writes.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A loop device.
struct Loop(PathBuf);

impl Loop {
    fn attach(image: &Path) -> Self {
        Self(run("losetup", &["--find", "--show", utf8(image)]).into())
    }

    /// Above a new file of zeros.
    fn empty(bench: &Bench, name: &str, size: u64) -> Self {
        let file = bench.layers.path().join(name);
        fs::File::create(&file).unwrap().set_len(size).unwrap();
        Self::attach(&file)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", utf8(&self.0)]);
    }
}

/// A device of device mapper.
struct Mapped {
    name: String,
}

impl Mapped {
    fn create(name: &str, table: &str) -> Self {
        let name = Self::name(name);
        run("dmsetup", &["create", &name, "--table", table]);
        Self::made(name)
    }

    /// One that has been made. Where no udev is, nobody has made its node.
    fn made(name: String) -> Self {
        let mapped = Self { name };
        run("dmsetup", &["mknodes", &mapped.name]);
        mapped
    }

    fn name(name: &str) -> String {
        format!("vc-test-{}-{name}", std::process::id())
    }

    fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(&self.name)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        run("dmsetup", &["remove", "--retry", &self.name]);
    }
}

/// A thin device with a file system of `tree`, and a snapshot of it (the kernel's
/// Documentation/admin-guide/device-mapper/thin-provisioning.rst). Dropped in this order.
struct Thin {
    snapshot: Mapped,
    origin: Mapped,
    _pool: Mapped,
    _metadata: Loop,
    data: Loop,
}

impl Thin {
    fn new(bench: &Bench, tree: &Path) -> Self {
        const SECTORS: u64 = 64 << 11;
        let data = Loop::empty(bench, "thin-data", SECTORS << 9);
        let metadata = Loop::empty(bench, "thin-metadata", 4 << 20);
        let table = format!("0 {SECTORS} thin-pool {} {} 128 0", utf8(&metadata.0), utf8(&data.0));
        let pool = Mapped::create("pool", &table);
        let thin = |name, number| {
            let half = SECTORS / 2;
            Mapped::create(name, &format!("0 {half} thin {} {number}", utf8(&pool.path())))
        };
        run("dmsetup", &["message", &pool.name, "0", "create_thin 0"]);
        let origin = thin("origin", 0);
        run("mkfs.ext4", &["-q", "-d", utf8(tree), utf8(&origin.path())]);
        run("dmsetup", &["suspend", &origin.name]);
        run("dmsetup", &["message", &pool.name, "0", "create_snap 1 0"]);
        run("dmsetup", &["resume", &origin.name]);
        let snapshot = thin("snapshot", 1);
        Self { snapshot, origin, _pool: pool, _metadata: metadata, data }
    }
}

/// Runs a script on the root that a device has.
fn on_disk(bench: &Bench, device: &Path, option: &str, script: &str) -> Output {
    let disk = serde_json::json!({"type": "ext4", "source": device, "options": [option]});
    with_root(bench, &[disk], script)
}

fn assert_refused(output: &Output, why: &str) {
    assert_code(output, 125);
    assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
}

#[test]
fn a_disk_is_no_root_while_the_host_has_it_mounted() {
    if !vc_tests::root() {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    let disk = Loop::attach(&ext4(&bench, "root.img", &busybox_tree(&bench, "root")));
    let at = bench.layers.path().join("mounted");
    let mut mounted = Mounted::default();
    mounted.disk(&disk.0, "ext4", &at);
    assert_refused(&on_disk(&bench, &disk.0, "ro", "true"), &format!("is mounted at {at:?}"));
    drop(mounted);
    let output = on_disk(&bench, &disk.0, "rw", "echo kept > /etc/kept; sync");
    assert_code(&output, 0);
    let mut mounted = Mounted::default();
    mounted.disk(&disk.0, "ext4", &at);
    assert_eq!(fs::read_to_string(at.join("etc/kept")).unwrap(), "kept\n", "the host has what was written");
}

#[test]
fn a_thin_snapshot_is_shared_while_it_is_mounted_and_plugged_when_it_is_not() {
    if !vc_tests::root() || !host::device_mapper("thin-pool") {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    let tree = busybox_tree(&bench, "root");
    fs::write(tree.join("etc/who"), "origin\n").unwrap();
    let thin = Thin::new(&bench, &tree);
    let (snapshot, origin) = (thin.snapshot.path(), thin.origin.path());
    let at = bench.layers.path().join("snapshot");
    let mut mounted = Mounted::default();
    mounted.disk(&snapshot, "ext4", &at);
    fs::write(at.join("etc/who"), "snapshot\n").unwrap();
    assert_refused(&on_disk(&bench, &snapshot, "rw", "true"), "is mounted at");
    assert_refused(&on_disk(&bench, &thin.data.0, "rw", "true"), "is held by dm-");

    let shared = serde_json::json!({"type": "bind", "source": at, "options": ["rbind", "rw"]});
    let output = with_root(&bench, &[shared], "cat /etc/who; echo shared > /etc/kept");
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "snapshot\n");
    drop(mounted);

    let output = on_disk(&bench, &snapshot, "rw", "cat /etc/who /etc/kept; echo plugged > /etc/kept; sync");
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "snapshot\nshared\n");
    let output = on_disk(&bench, &snapshot, "ro", "cat /etc/kept");
    assert_eq!(text(&output.stdout), "plugged\n");
    let output = on_disk(&bench, &origin, "ro", "cat /etc/who; test -e /etc/kept || echo untouched");
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "origin\nuntouched\n");
}

#[test]
fn a_layer_that_is_mounted_from_dm_verity_is_refused_by_name() {
    if !vc_tests::root() || !host::device_mapper("verity") {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    let Some(Verified { image, size, hash }) = Verified::new(&bench) else { return };
    let name = Mapped::name("verity");
    let (image, offset) = (utf8(&image), format!("--hash-offset={size}"));
    run("veritysetup", &["open", image, &name, image, &hash, &offset]);
    let device = Mapped::made(name);
    let at = bench.layers.path().join("verified");
    let mut mounted = Mounted::default();
    mounted.disk(&device.path(), "erofs", &at);
    // The host has verified it, and the guest would have to believe that; nor is a device that is in use given away.
    let options = [format!("lowerdir={}", at.display())];
    let mount = serde_json::json!({"type": "overlay", "source": "overlay", "options": options});
    assert_refused(&with_root(&bench, &[mount], "true"), "is mounted from the block device");
}
