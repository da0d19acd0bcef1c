//! Volumes and the other kinds of root, looked at from inside.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vc_storage::DirectVolumes;
use vc_tests::Mounted;
use vc_types::HostPath;

use crate::run::{Bench, assert_code, text};

/// A file with an ext4 file system of 16 MiB, in which `tree` is.
pub(crate) fn ext4(bench: &Bench, name: &str, tree: &Path) -> PathBuf {
    let image = bench.layers.path().join(name);
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-d"]).arg(tree).arg(&image).status().unwrap();
    assert!(made.success());
    image
}

/// A loop device.
pub(crate) struct Loop(pub(crate) String);

impl Loop {
    /// Has it as much as its file has now.
    pub(crate) fn grow(&self) {
        assert!(Command::new("losetup").args(["--set-capacity", &self.0]).status().unwrap().success());
    }

    pub(crate) fn of(image: &Path) -> Self {
        let device = Command::new("losetup").args(["--find", "--show"]).arg(image).output().unwrap();
        Self(text(&device.stdout).trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        Command::new("losetup").args(["--detach", &self.0]).status().unwrap();
    }
}

/// A volume that a CSI driver has left to the runtime: a loop device, whose files go to the group 2000.
struct Direct {
    volumes: DirectVolumes,
    volume: HostPath,
    _device: Loop,
}

impl Direct {
    fn assign(volume: &Path, image: &Path) -> Self {
        fs::create_dir_all(volume).unwrap();
        let device = Loop::of(image);
        let (volumes, volume) = (DirectVolumes::default(), HostPath::new(volume).unwrap());
        let info = serde_json::json!({"volume-type": "block", "device": device.0, "fstype": "ext4",
            "metadata": {"fsGroup": "2000", "fsGroupChangePolicy": "Always"}, "options": ["rw"]});
        volumes.add(&volume, info.to_string().as_bytes()).unwrap();
        Self { volumes, volume, _device: device }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.volumes.remove(&self.volume).unwrap();
        // Where they are, if nobody else has one.
        for parent in ["shared/direct-volumes", "shared", ""] {
            let _ = fs::remove_dir(Path::new("/run/kata-containers").join(parent));
        }
    }
}

fn bundle(bench: &Bench, script: &str, mounts: &serde_json::Value) -> PathBuf {
    let bundle = bench.layers.path().join("volumes");
    fs::create_dir_all(&bundle).unwrap();
    let config = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": ["sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": ["CAP_DAC_OVERRIDE", "CAP_CHOWN", "CAP_FOWNER"], "effective": ["CAP_DAC_OVERRIDE", "CAP_CHOWN", "CAP_FOWNER"], "permitted": ["CAP_DAC_OVERRIDE", "CAP_CHOWN", "CAP_FOWNER"]}
        },
        "root": {"path": "rootfs"},
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "mount"}],
            "resources": {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}
        }
    });
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    bundle
}

/// Each line of the output is a fact about one volume.
const LOOK: &str = r#"
cat /rw/from-host; echo written > /rw/from-guest; stat -c '%u %g' /rw/owned; cat /rw/below/file
cat /ro/from-host; echo x 2>/dev/null > /ro/x || echo ro; echo x 2>/dev/null > /ro/below/x || echo ro below
cat /etc/one-file; echo x 2>/dev/null > /etc/one-file && echo file written
stat -f -c %T /dev/shm; stat -f -c %T /memory; stat -c '%g' /memory
echo x > /local/x && stat -c '%a' /local
grep -c ' /huge hugetlbfs .*pagesize=2M' /proc/self/mounts; grep HugePages_Total /proc/meminfo | tr -s ' '
cat /image/in-image; echo x 2>/dev/null > /image/x || echo image ro
test -e /proc/self/mounts && echo proc
cat /csi/in-image; stat -c %g /csi /csi/in-image; echo x > /csi/x && stat -c %g /csi/x
exec perl /watch.pl
"#;

/// Tells the value of the config map once it watches it, and again as soon as `..data` was replaced. The calls are
/// inotify_init(2) and inotify_add_watch(2) with `IN_MOVED_TO`.
const WATCH: &str = r#"
$| = 1;
sub value { open(my $key, "<", "/map/key") or die; print <$key>; }
my $directory = "/map";
my $watch = syscall(253);
syscall(254, $watch, $directory, 0x80) >= 0 or die;
open(my $events, "<&=", $watch) or die;
value();
while (sysread($events, my $event, 4096)) {
    while (length $event) {
        my $length = unpack("x12 L", $event);
        my $name = unpack("Z*", substr($event, 16, $length));
        if ($name eq "..data") { value(); exit; }
        $event = substr($event, 16 + $length);
    }
}
"#;

/// A layer with what watches: perl, which is on every Debian, with its libraries.
fn watcher(bench: &Bench) -> PathBuf {
    bench.layers.layer("watcher", |root| {
        fs::write(root.join("watch.pl"), WATCH).unwrap();
        let copy = |path: &Path| {
            let to = root.join(path.strip_prefix("/").unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(path, to).unwrap();
        };
        fs::create_dir(root.join("bin")).unwrap();
        fs::copy("/usr/bin/perl", root.join("bin/perl")).unwrap();
        let needs = text(&Command::new("ldd").arg("/usr/bin/perl").output().unwrap().stdout);
        needs.split_whitespace().filter(|word| word.starts_with('/')).for_each(|path| copy(Path::new(path)));
    })
}

const SEEN: &str = "of the host\n1234 5678\nof a mount\nof the host\nro\nro below\none\nfile written\ntmpfs\ntmpfs\n7\n777\n1\nHugePages_Total: 2\nin the image\nimage ro\nproc\nin the image\n2000\n2000\n2000\n";

#[test]
fn every_kind_of_volume_is_what_it_was_on_the_host() {
    if !vc_tests::root() {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    let base = bench.layers.path().join("host");
    let source = base.join("source");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("from-host"), "of the host\n").unwrap();
    fs::write(source.join("owned"), "").unwrap();
    chown(source.join("owned"), Some(1234), Some(5678)).unwrap();
    let mut mounted = Mounted::default();
    mounted.tmpfs(&source.join("below"), "size=64k");
    fs::write(source.join("below/file"), "of a mount\n").unwrap();
    fs::write(base.join("one-file"), "one\n").unwrap();
    let tree = base.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("in-image"), "in the image\n").unwrap();
    let image = ext4(&bench, "volume.img", &tree);
    let empty = base.join("kubernetes.io~empty-dir");
    mounted.tmpfs(&empty.join("memory"), "size=64k");
    chown(empty.join("memory"), Some(0), Some(7)).unwrap();
    fs::create_dir_all(empty.join("local")).unwrap();
    mounted.hugetlbfs(&empty.join("huge"), "pagesize=2M");
    let map = config_map(&base);
    let csi = Direct::assign(&base.join("csi"), &ext4(&bench, "csi.img", &tree));
    let mounts = serde_json::json!([
        {"destination": "/csi", "type": "bind", "source": csi.volume.as_path(), "options": ["rbind"]},
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/rw", "type": "bind", "source": source, "options": ["rbind", "rw"]},
        {"destination": "/ro", "type": "bind", "source": source, "options": ["rbind", "ro"]},
        {"destination": "/etc/one-file", "type": "bind", "source": base.join("one-file"), "options": ["rbind"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/dev/shm", "type": "bind", "source": source, "options": ["rbind"]},
        {"destination": "/memory", "type": "bind", "source": empty.join("memory"), "options": ["rbind"]},
        {"destination": "/local", "type": "bind", "source": empty.join("local"), "options": ["rbind"]},
        {"destination": "/huge", "type": "bind", "source": empty.join("huge"), "options": ["rbind"]},
        {"destination": "/image", "type": "ext4", "source": image, "options": ["ro", "io.katacontainers.fs-opt.block_device=file"]},
        {"destination": "/map", "type": "bind", "source": map, "options": ["rbind", "ro"]},
    ]);
    let mut command = bench.bare();
    command.arg("--bundle").arg(bundle(&bench, LOOK, &mounts)).arg("--layer").arg(watcher(&bench));
    command.arg("--layer").arg(&bench.busybox);
    let (seen, ended) = replacing(&map, command);
    assert_eq!(seen, format!("{SEEN}first\nsecond\n"), "{}", text(&ended.stderr));
    assert!(ended.status.success());
    assert_eq!(fs::read_to_string(source.join("from-guest")).unwrap(), "written\n");
    assert_eq!(fs::read_to_string(base.join("one-file")).unwrap(), "x\n");
    assert_eq!(fs::read_to_string(source.join("below/file")).unwrap(), "of a mount\n", "the source survives");
    assert!(!source.join("x").exists() && fs::read_dir(empty.join("local")).unwrap().next().is_none());
    bench.leftovers.assert_none();
}

#[test]
fn without_a_shared_file_system_copies_are_made_and_follow_their_source() {
    let Some(bench) = Bench::unprivileged() else { return };
    let base = bench.layers.path().join("host");
    let plain = base.join("plain");
    fs::create_dir_all(&plain).unwrap();
    fs::write(plain.join("large"), vec![b'x'; 3 << 20]).unwrap();
    symlink("large", plain.join("link")).unwrap();
    let map = config_map(&base);
    let mounts = serde_json::json!([
        {"destination": "/plain", "type": "bind", "source": plain, "options": ["rbind"]},
        {"destination": "/map", "type": "bind", "source": map, "options": ["rbind", "ro"]},
    ]);
    let look = "wc -c < /plain/link; readlink /plain/link; exec perl /watch.pl";
    let mut command = bench.bare();
    command.arg("--bundle").arg(bundle(&bench, look, &mounts)).arg("--layer").arg(watcher(&bench));
    command.arg("--layer").arg(&bench.busybox);
    let (seen, ended) = replacing(&map, command);
    assert_eq!(seen, "3145728\nlarge\nfirst\nsecond\n", "{}", text(&ended.stderr));
    assert!(ended.status.success());
    bench.leftovers.assert_none();
}

/// Runs a command, and replaces the config map once its first value was told; gives its output.
fn replacing(map: &Path, mut command: Command) -> (String, std::process::Output) {
    let mut vc = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = std::io::BufReader::new(vc.stdout.take().unwrap());
    let mut seen = String::new();
    while !seen.ends_with("first\n") {
        let read = std::io::BufRead::read_line(&mut output, &mut seen).unwrap();
        if read == 0 {
            break;
        }
    }
    replace(map);
    std::io::Read::read_to_string(&mut output, &mut seen).unwrap();
    (seen, vc.wait_with_output().unwrap())
}

/// As the kubelet makes one: files are links into a directory that a link is to (its AtomicWriter).
fn config_map(base: &Path) -> PathBuf {
    let map = base.join("kubernetes.io~configmap/map");
    fs::create_dir_all(map.join("..1")).unwrap();
    fs::write(map.join("..1/key"), "first\n").unwrap();
    symlink("..1", map.join("..data")).unwrap();
    symlink("..data/key", map.join("key")).unwrap();
    map
}

fn replace(map: &Path) {
    fs::create_dir(map.join("..2")).unwrap();
    fs::write(map.join("..2/key"), "second\n").unwrap();
    symlink("..2", map.join("..data_tmp")).unwrap();
    fs::rename(map.join("..data_tmp"), map.join("..data")).unwrap();
}

/// A directory with busybox in it.
pub(crate) fn busybox_tree(bench: &Bench, name: &str) -> PathBuf {
    let tree = bench.layers.path().join(name);
    for directory in ["bin", "proc", "dev", "sys", "etc"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "stat", "sync", "ls"] {
        symlink("busybox", tree.join("bin").join(applet)).unwrap();
    }
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).unwrap();
    tree
}

pub(crate) fn with_root(bench: &Bench, mounts: &[serde_json::Value], script: &str) -> std::process::Output {
    let mut command = bench.bare();
    for mount in mounts {
        command.arg("--rootfs-mount").arg(mount.to_string());
    }
    command.args(["--", "sh", "-c", script]);
    bench.finish(command)
}

#[test]
fn a_directory_and_a_disk_are_roots_and_keep_what_is_written() {
    if !vc_tests::root() {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    let tree = busybox_tree(&bench, "root");
    let directory = serde_json::json!({"type": "bind", "source": tree, "options": ["rbind", "rw"]});
    let output = with_root(&bench, &[directory], "echo kept > /etc/kept; cat /etc/kept");
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "kept\n");
    assert_eq!(fs::read_to_string(tree.join("etc/kept")).unwrap(), "kept\n");
    let image = ext4(&bench, "root.img", &tree);
    let disk = |options: &[&str]| serde_json::json!({"type": "ext4", "source": image, "options": options});
    let output = with_root(&bench, &[disk(&["rw"])], "cat /etc/kept; echo again > /etc/again; sync");
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "kept\n");
    let output = with_root(&bench, &[disk(&["ro"])], "cat /etc/again; echo x > /etc/x");
    assert_code(&output, 1);
    assert_eq!(text(&output.stdout), "again\n");
    assert!(text(&output.stderr).contains("Read-only file system"), "{}", text(&output.stderr));
    // As a block device, which is not mounted anywhere.
    let device = Loop::of(&image);
    let block = serde_json::json!({"type": "ext4", "source": device.0, "options": ["rw"]});
    let output = with_root(&bench, &[block], "cat /etc/again; echo block > /etc/again; sync");
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "again\n");
    drop(device);
    let output = with_root(&bench, &[disk(&["ro"])], "cat /etc/again");
    assert_eq!(text(&output.stdout), "block\n", "{}", text(&output.stderr));
}

/// `rwlayer.img` as containerd's mount manager hands it over with `default_size`: the first time it is to be made, by
/// the prefix `mkfs/`.
#[test]
fn what_is_written_goes_to_the_image_that_is_handed_over() {
    if !vc_tests::root() {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    let image = bench.layers.path().join("rwlayer.img");
    let mounts = [
        serde_json::json!({"type": "mkfs/ext4", "source": image, "options": [
            "X-containerd.mkfs.fs=ext4", "X-containerd.mkfs.size=16777216", "rw", "loop"]}),
        serde_json::json!({"type": "erofs", "source": bench.busybox, "options": ["ro", "loop"]}),
        serde_json::json!({"type": "format/mkdir/overlay", "source": "overlay", "options": [
            "X-containerd.mkdir.path={{ mount 0 }}/upper:0755", "X-containerd.mkdir.path={{ mount 0 }}/work:0755",
            "workdir={{ mount 0 }}/work", "upperdir={{ mount 0 }}/upper", "lowerdir={{ mount 1 }}"]}),
    ];
    let output = with_root(&bench, &mounts, "echo kept > /kept; rm /etc/passwd; sync");
    assert_code(&output, 0);
    let output = with_root(&bench, &mounts, "cat /kept; test -e /etc/passwd || echo removed");
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "kept\nremoved\n");
}

/// The layer with busybox, with the hashes of dm-verity behind it.
pub(crate) struct Verified {
    pub(crate) image: PathBuf,
    /// Where the hashes begin.
    pub(crate) size: u64,
    /// The root hash.
    pub(crate) hash: String,
}

impl Verified {
    pub(crate) fn new(bench: &Bench) -> Option<Self> {
        let image = bench.layers.path().join("verified.erofs");
        fs::copy(&bench.busybox, &image).unwrap();
        let size = fs::metadata(&image).unwrap().len().next_multiple_of(4096);
        fs::File::options().write(true).open(&image).unwrap().set_len(size).unwrap();
        let mut format = Command::new("veritysetup");
        format.arg("format").arg(&image).arg(&image).arg(format!("--hash-offset={size}"));
        let Ok(made) = format.output() else {
            vc_tests::skip("veritysetup is not installed");
            return None;
        };
        let made = text(&made.stdout);
        let hash = made.lines().find_map(|line| line.strip_prefix("Root hash:")).unwrap().trim().to_owned();
        Some(Self { image, size, hash })
    }
}

#[test]
fn a_layer_that_was_tampered_with_is_refused_by_dm_verity() {
    if !vc_tests::root() {
        return;
    }
    let Some(bench) = Bench::new() else { return };
    let Some(Verified { image, size, hash }) = Verified::new(&bench) else { return };
    let root = bench.layers.path().join("verified.erofs.dmverity");
    fs::write(&root, serde_json::json!({"roothash": hash, "hashoffset": size}).to_string()).unwrap();
    let option = format!("X-containerd.dmverity={}", root.display());
    let mount = serde_json::json!({"type": "erofs", "source": image, "options": ["ro", "loop", option]});
    let output = with_root(&bench, std::slice::from_ref(&mount), "cat /etc/passwd");
    assert_code(&output, 0);
    assert_eq!(text(&output.stdout), "root:x:0:0:root:/:/bin/sh\n");
    // One byte of each block behind the superblock's.
    let mut bytes = fs::read(&image).unwrap();
    let data = usize::try_from(size).unwrap();
    bytes[4096..data].iter_mut().step_by(4096).for_each(|byte| *byte ^= 1);
    fs::write(&image, bytes).unwrap();
    let output = with_root(&bench, &[mount], "cat /etc/passwd");
    assert_ne!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(!text(&output.stdout).contains("root:x"));
}
