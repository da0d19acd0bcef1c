//! Each kind of mount, and the defects that are not repeated.

use super::*;
use vc_device::{Access, BLOCK_FILE_OPTION, DeviceSource, FileId};
use vc_types::DeviceNumber;

const POLICY: MountPolicy = MountPolicy::new(SharedFs::VirtioFs);

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> ContainerMount {
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    let mount = Mount { kind: kind.into(), source: source.into(), options };
    ContainerMount { destination: destination.into(), mount }
}

fn bind(destination: &str, source: &str) -> ContainerMount {
    mount(destination, "bind", source, &["rbind", "rw"])
}

fn block(minor: u32) -> PathKind {
    PathKind::Block(DeviceNumber::new(8, minor).unwrap())
}

fn file() -> PathKind {
    PathKind::Regular(FileId { device: DeviceNumber::new(8, 1).unwrap(), inode: 7 })
}

fn is(kind: PathKind) -> MountFacts {
    MountFacts { kind: Some(kind), ..MountFacts::default() }
}

fn way(mount: &ContainerMount, facts: &MountFacts) -> MountWay {
    plan_mount(mount, facts, POLICY).unwrap().way
}

#[test]
fn what_the_guest_makes_itself() {
    let nothing = MountFacts::default();
    for mount in [
        mount("/proc", "proc", "proc", &["nosuid"]),
        mount("/tmp", "tmpfs", "tmpfs", &["size=64k"]),
        mount("/sys", "sysfs", "sysfs", &["ro"]),
        bind("/host/proc", "/proc"),
        bind("/sys/fs/cgroup", "/sys/fs/cgroup"),
    ] {
        assert_eq!(way(&mount, &nothing), MountWay::InGuest, "{mount:?}");
    }
    for shm in ["/dev/shm", "/dev/shm/"] {
        assert_eq!(way(&bind(shm, "/run/pod/shm"), &is(PathKind::Directory)), MountWay::SharedMemory);
    }
    let similar = way(&bind("/a", "/sysfoo"), &is(PathKind::Directory));
    assert!(matches!(similar, MountWay::Share { .. }), "{similar:?}");
}

#[test]
fn a_block_device_is_plugged_and_read_only_if_anything_says_so() {
    let access = |options: &[&str], read_only_device| {
        let disk = DiskFacts { read_only: read_only_device, ..DiskFacts::default() };
        let facts = MountFacts { disk, ..is(block(16)) };
        match way(&mount("/data", "bind", "/srv/disk", options), &facts) {
            MountWay::Plug { device, fs_type, .. } if fs_type == "bind" => device.access,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(access(&["rbind"], false), Access::ReadWrite);
    assert_eq!(access(&["rbind", "ro"], false), Access::ReadOnly);
    assert_eq!(access(&["rbind"], true), Access::ReadOnly);
}

#[test]
fn a_disk_image_is_plugged_when_an_option_says_so() {
    let image = mount("/data", "ext4", "/srv/image", &[BLOCK_FILE_OPTION, "noatime"]);
    let MountWay::Plug { device, fs_type, options, .. } = way(&image, &is(file())) else {
        panic!("a disk is expected");
    };
    assert!(matches!(device.source, DeviceSource::File { .. }));
    assert_eq!((fs_type.as_str(), options), ("ext4", vec!["noatime".to_owned()]));
    let error = plan_mount(&image, &is(PathKind::Directory), POLICY).unwrap_err();
    assert!(matches!(error.cause, VolumeCause::Device(MountError::NoImage { .. })), "{error}");
}

#[test]
fn an_empty_dir_is_where_its_medium_is() {
    let empty = bind("/cache", "/var/lib/kubelet/pods/1/volumes/kubernetes.io~empty-dir/cache");
    let on = |fs_type: &str| MountFacts { fs_type: Some(fs_type.into()), ..is(PathKind::Directory) };
    let name = || "cache".to_owned();
    assert_eq!(way(&empty, &on("tmpfs")), MountWay::Ephemeral { name: name(), gid: 0 });
    let huge = MountFacts { huge_page: Some(2 << 20), ..on("hugetlbfs") };
    assert_eq!(way(&empty, &huge), MountWay::HugePages { name: name(), page_size: 2 << 20 });
    // Also within a file system in memory, as all of a host may be.
    let local = MountFacts { gid: 7, ..is(PathKind::Directory) };
    assert_eq!(way(&empty, &local), MountWay::Local { name: name(), gid: 7 });
    let policy = MountPolicy { local_empty_dir: false, ..POLICY };
    let shared = plan_mount(&empty, &on("ext4"), policy).unwrap().way;
    assert!(matches!(shared, MountWay::Share { .. }), "{shared:?}");
}

#[test]
fn files_that_kubernetes_replaces_are_watched_if_the_policy_has_it() {
    for kind in ["configmap", "secret", "projected", "downward-api"] {
        let map = bind("/etc/x", &format!("/pods/1/volumes/kubernetes.io~{kind}/x"));
        let watched = |files, policy| {
            let facts = MountFacts { files, ..is(PathKind::Directory) };
            match plan_mount(&map, &facts, policy).unwrap().way {
                MountWay::Share { watched, .. } | MountWay::Copy { watched, .. } => watched,
                other => panic!("{other:?}"),
            }
        };
        assert!(watched(3, POLICY), "{kind}");
        assert!(!watched(0, POLICY) && !watched(17, POLICY));
        assert!(!watched(3, MountPolicy { watch: false, ..POLICY }));
        assert!(watched(3, MountPolicy { shared_fs: SharedFs::None, ..POLICY }));
    }
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let gone = plan_mount(&bind("/a", "/srv/gone"), &MountFacts::default(), POLICY).unwrap_err();
    assert!(matches!(gone.cause, VolumeCause::NoSource(_)), "{gone}");
    let socket = plan_mount(&bind("/a", "/run/x.sock"), &is(PathKind::Other), POLICY).unwrap_err();
    assert!(matches!(socket.cause, VolumeCause::Special(_)), "{socket}");
    let relative = plan_mount(&bind("/a", "b"), &is(PathKind::Directory), POLICY).unwrap_err();
    assert!(matches!(relative.cause, VolumeCause::Path(_)), "{relative}");
}

fn info(text: &str) -> Result<DirectVolume, InvalidDirectVolume> {
    DirectVolume::parse(text.as_bytes())
}

/// The seed logs a malformed `mountInfo.json`, shares the directory, and the pod writes to the node's disk.
#[test]
fn l9_a_malformed_direct_volume_is_an_error() {
    let good = r#"{"volume-type":"block","device":"/dev/sdb","fstype":"ext4","metadata":{"fsGroup":"7","fsGroupChangePolicy":"OnRootMismatch"},"options":["ro"]}"#;
    let volume = info(good).unwrap();
    assert_eq!(volume.fs_group, Some(FsGroupOf { id: 7, on_root_mismatch: true }));
    let facts = |kind| MountFacts { direct: Some((volume.clone(), kind)), ..is(PathKind::Directory) };
    let MountWay::Plug { device, .. } = way(&bind("/data", "/csi/volume"), &facts(block(16))) else {
        panic!("a disk is expected");
    };
    assert_eq!(device.access, Access::ReadOnly);
    let error = plan_mount(&bind("/data", "/csi/volume"), &facts(PathKind::Directory), POLICY).unwrap_err();
    assert!(matches!(error.cause, VolumeCause::Device(MountError::NoDisk { .. })), "{error}");
    for end in 0..good.len() {
        assert!(info(&good[..end]).is_err(), "cut at {end}");
    }
    for (from, to) in [
        (r#""block""#, r#""file""#),
        (r#""7""#, r#""x""#),
        (r#""7""#, r#""-1""#),
        ("OnRootMismatch", "Sometimes"),
        ("fsGroup\"", "fsgroup\""),
        ("/dev/sdb", "sdb"),
        ("\"options\"", "\"option\""),
    ] {
        assert!(info(&good.replace(from, to)).is_err(), "{to}");
    }
}

/// The seed refuses the group 0 of a volume.
#[test]
fn l48_group_0_is_a_group() {
    let volume =
        info(r#"{"volume-type":"block","device":"/dev/sdb","fstype":"ext4","metadata":{"fsGroup":"0"}}"#);
    assert_eq!(volume.unwrap().fs_group, Some(FsGroupOf { id: 0, on_root_mismatch: false }));
}

/// The seed looks for the *destination* among the host's devices.
#[test]
fn l47_a_device_is_told_by_its_source() {
    let directory = way(&bind("/dev/foo", "/srv/foo"), &is(PathKind::Directory));
    assert!(matches!(directory, MountWay::Share { .. }), "{directory:?}");
    let character = PathKind::Character(DeviceNumber::new(1, 3).unwrap());
    assert_eq!(way(&bind("/null", "/dev/null"), &is(character)), MountWay::GuestDevice);
    assert_eq!(way(&bind("/dev/x", "/dev/only-in-guest"), &MountFacts::default()), MountWay::GuestDevice);
    let regular = way(&bind("/x", "/dev/file"), &is(file()));
    assert!(matches!(regular, MountWay::Share { .. }), "{regular:?}");
}

/// The seed takes a node outside `/dev` for the disk below it in one place, and for itself in another.
#[test]
fn l50_a_node_outside_dev_is_itself() {
    let MountWay::Plug { device, .. } = way(&bind("/data", "/srv/node"), &is(block(33))) else {
        panic!("a disk is expected");
    };
    assert!(matches!(device.source, DeviceSource::Block { number, .. } if number.minor() == 33));
}
