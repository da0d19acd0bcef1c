//! The plan of each kind of root and of each kind of mount: one file in `golden/plan` for each.
//!
//! Set `VC_WRITE_GOLDEN` to write what is planned instead of comparing it.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

mod world;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use vc_device::{Access, DeviceSource, GuestLocation, PathKind};
use vc_mountinfo::DeviceUse;
use vc_storage::{
    DiskFacts, DiskPlug, DiskRefusal, DiskUse, Edit, HostFacts, LayerFacts, LayerSource, Layers, Mount,
    MountFacts, MountPolicy, PlanError, RootFacts, Rootfs, SharedFs, StoragePlan, StorageRequest,
    Unsupported, Upper, plan,
};
use vc_types::{DeviceNumber, HostPath};

use world::{bind, block, directory, facts_of_root, file, mount, request, volume_info};

const POLICY: MountPolicy = MountPolicy::new(SharedFs::VirtioFs);

/// As [`POLICY`], where nydusd serves what is shared.
const BY_NYDUSD: MountPolicy = MountPolicy::new(SharedFs::Nydus);

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plan").join(format!("{name}.json"))
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // A transparent error repeats its cause.
        if !text.ends_with(&cause.to_string()) {
            text += &format!(": {cause}");
        }
        source = cause.source();
    }
    text
}

/// Compares what is planned, or why nothing is, with the file of that name.
fn check(name: &str, result: &Result<StoragePlan, PlanError>) {
    let value = match result {
        Ok(plan) => serde_json::to_value(plan).unwrap(),
        Err(error) => serde_json::json!({ "refused": chain(error) }),
    };
    let text = serde_json::to_string_pretty(&value).unwrap() + "\n";
    if std::env::var_os("VC_WRITE_GOLDEN").is_some() {
        std::fs::write(golden(name), text).unwrap();
    } else {
        let known = std::fs::read_to_string(golden(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(text, known, "{name}");
    }
}

#[test]
fn every_root_that_is_handed_over_has_a_plan_or_a_reason() {
    let roots = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rootfs");
    let mut count = 0;
    for entry in std::fs::read_dir(roots).unwrap() {
        let path = entry.unwrap().path();
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let mounts: Vec<Mount> = serde_json::from_value(value["mounts"].clone()).unwrap();
        let rootfs = Rootfs::of_mounts(&mounts).unwrap();
        let facts = HostFacts { root: facts_of_root(&rootfs), mounts: Vec::new() };
        let policy = if matches!(rootfs, Rootfs::Nydus(_)) { BY_NYDUSD } else { POLICY };
        let request = request(rootfs, Vec::new());
        check(&format!("root-{}", path.file_stem().unwrap().display()), &plan(&request, &facts, policy));
        count += 1;
    }
    assert!(count >= 21, "only {count} files");
}

#[test]
fn every_kind_of_virtual_volume_has_a_plan_or_a_reason() {
    let nydus = serde_json::json!({"config": "{}"});
    let pull = serde_json::json!({"metadata": {"image": "busybox"}});
    let verity = serde_json::json!({"hashtype": "sha256", "hash": "ab".repeat(32), "blocknum": 2, "blocksize": 512, "hashsize": 512, "offset": 1024});
    for (name, kind, source, extra) in [
        ("direct-block", "direct_block", "/dev/sdb", serde_json::json!({"direct_volume": {"metadata": {}}})),
        ("image-raw-block", "image_raw_block", "/images/a", serde_json::json!({})),
        ("image-raw-block-verity", "image_raw_block", "/images/a", serde_json::json!({"dm_verity": verity})),
        ("layer-raw-block", "layer_raw_block", "/layers/a", serde_json::json!({"dm_verity": verity})),
        ("image-nydus-block", "image_nydus_block", "/images/a", serde_json::json!({"nydus_image": nydus})),
        ("layer-nydus-block", "layer_nydus_block", "/images/a", serde_json::json!({"nydus_image": nydus})),
        ("image-nydus-fs", "image_nydus_fs", "/images/a", serde_json::json!({"nydus_image": nydus})),
        ("layer-nydus-fs", "layer_nydus_fs", "/images/a", serde_json::json!({"nydus_image": nydus})),
        ("image-guest-pull", "image_guest_pull", "busybox:1", serde_json::json!({"image_pull": pull})),
    ] {
        let mut value =
            serde_json::json!({"volume_type": kind, "source": source, "fs_type": "erofs", "options": ["ro"]});
        value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let rootfs = Rootfs::Volumes { volumes: vec![serde_json::from_value(value).unwrap()] };
        let facts = HostFacts { root: facts_of_root(&rootfs), mounts: Vec::new() };
        check(&format!("virtual-volume-{name}"), &plan(&request(rootfs, Vec::new()), &facts, POLICY));
    }
}

#[test]
fn every_kind_of_mount_has_a_plan_or_a_reason() {
    let is = |kind: PathKind| MountFacts { kind: Some(kind), ..MountFacts::default() };
    let on = |fs_type: &str| MountFacts { fs_type: Some(fs_type.into()), ..is(PathKind::Directory) };
    let disk = |kind: PathKind| DiskFacts { kind: Some(kind), ..DiskFacts::default() };
    let kubelet = |kind: &str| format!("/var/lib/kubelet/pods/1/volumes/kubernetes.io~{kind}/data");
    let image = "io.katacontainers.fs-opt.block_device=file";
    let direct =
        || MountFacts { direct: Some((volume_info(), block(8, 32))), disk: disk(block(8, 32)), ..on("ext4") };
    let watched = || MountFacts { files: 3, ..on("tmpfs") };
    let huge = || MountFacts { huge_page: Some(2 << 20), ..on("hugetlbfs") };
    let pmem = || MountFacts { pmem: Some(world::pmem()), ..on("ext4") };
    let used = |uses: DeviceUse| MountFacts {
        disk: DiskFacts { kind: Some(block(8, 16)), read_only: false, uses: vec![uses] },
        ..is(block(8, 16))
    };
    let number = |minor| vc_mountinfo::DeviceNumber::new(8, minor);
    let cases = [
        ("proc", mount("/proc", "proc", "proc", &["nosuid"]), MountFacts::default()),
        ("system-by-source", bind("/host", "/proc/sys"), is(PathKind::Directory)),
        ("unknown-type", mount("/data", "nfs", "server:/data", &[]), MountFacts::default()),
        ("shm", bind("/dev/shm", "/run/pod/shm"), on("tmpfs")),
        ("host-device-by-source", bind("/null", "/dev/null"), is(world::character())),
        ("device-only-in-guest", bind("/dev/x", "/dev/only-in-guest"), MountFacts::default()),
        ("directory", bind("/data", "/srv/data"), on("ext4")),
        ("directory-read-only", mount("/data", "bind", "/srv/data", &["rbind", "ro"]), on("ext4")),
        ("directory-not-recursive", mount("/data", "bind", "/srv/data", &["bind", "rw"]), on("ext4")),
        ("directory-that-follows", mount("/data", "bind", "/srv/data", &["rbind", "rslave"]), on("ext4")),
        ("directory-shared", mount("/data", "bind", "/srv/data", &["rbind", "rshared"]), on("ext4")),
        ("file", bind("/etc/hosts", "/srv/hosts"), is(file(7))),
        ("socket", bind("/run/x.sock", "/run/x.sock"), is(PathKind::Other)),
        ("absent", bind("/data", "/srv/gone"), MountFacts::default()),
        (
            "block-device",
            bind("/disk", "/dev/sdb"),
            MountFacts { disk: disk(block(8, 16)), ..is(block(8, 16)) },
        ),
        (
            "block-device-read-only",
            mount("/disk", "bind", "/dev/sdb", &["rbind", "ro"]),
            MountFacts { disk: disk(block(8, 16)), ..is(block(8, 16)) },
        ),
        (
            "block-device-that-is-read-only",
            bind("/disk", "/dev/sdb"),
            MountFacts { disk: DiskFacts { read_only: true, ..disk(block(8, 16)) }, ..is(block(8, 16)) },
        ),
        (
            "block-device-mounted",
            bind("/disk", "/dev/sdb"),
            used(DeviceUse::Mounted { device: number(16), mount_point: "/srv".into() }),
        ),
        ("block-device-swap", bind("/disk", "/dev/sdb"), used(DeviceUse::Swap { device: number(16) })),
        (
            "block-device-held",
            bind("/disk", "/dev/sdb"),
            used(DeviceUse::Holder { device: number(16), holder: "dm-0".into() }),
        ),
        (
            "block-device-loop",
            bind("/disk", "/dev/sdb"),
            used(DeviceUse::Loop { device: number(16), number: 3 }),
        ),
        (
            "block-device-with-a-used-partition",
            bind("/disk", "/dev/sdb"),
            used(DeviceUse::Mounted { device: number(17), mount_point: "/srv".into() }),
        ),
        ("block-device-claimed", bind("/disk", "/dev/sdb"), used(DeviceUse::Claimed)),
        (
            "image",
            mount("/data", "ext4", "/srv/image", &[image, "noatime"]),
            MountFacts { disk: disk(file(9)), ..is(file(9)) },
        ),
        (
            "image-xfs",
            mount("/data", "xfs", "/srv/image", &[image]),
            MountFacts { disk: disk(file(9)), ..is(file(9)) },
        ),
        ("image-that-is-none", mount("/data", "ext4", "/srv/image", &[image]), on("ext4")),
        (
            "layer-volume",
            mount("/run/layers/a", "tar", "/dev/sdb", &["io.katacontainers.fs-opt.is-layer"]),
            MountFacts { disk: disk(block(8, 16)), ..is(block(8, 16)) },
        ),
        ("direct-volume", bind("/data", "/csi/volume"), direct()),
        ("pmem", bind("/data", "/srv/dax"), pmem()),
        ("empty-dir-memory", bind("/cache", &kubelet("empty-dir")), MountFacts { gid: 7, ..on("tmpfs") }),
        ("empty-dir-local", bind("/cache", &kubelet("empty-dir")), on("ext4")),
        ("empty-dir-huge-pages", bind("/huge", &kubelet("empty-dir")), huge()),
        ("config-map", bind("/etc/app", &kubelet("configmap")), watched()),
        ("secret", mount("/etc/app", "bind", &kubelet("secret"), &["rbind", "ro"]), watched()),
        ("projected", bind("/etc/app", &kubelet("projected")), watched()),
        ("downward-api", bind("/etc/app", &kubelet("downward-api")), watched()),
    ];
    for (name, wanted, facts) in cases {
        let rootfs = world::one_layer();
        let facts = HostFacts { root: facts_of_root(&rootfs), mounts: vec![facts] };
        let request = request(rootfs, vec![wanted]);
        check(&format!("mount-{name}"), &plan(&request, &facts, POLICY));
        if ["directory", "config-map", "empty-dir-local"].contains(&name) {
            let policy = MountPolicy { local_empty_dir: false, ..MountPolicy::new(SharedFs::None) };
            check(&format!("mount-{name}-without-a-shared-file-system"), &plan(&request, &facts, policy));
        }
    }
}

fn planned(
    rootfs: Rootfs,
    mounts: Vec<(vc_storage::ContainerMount, MountFacts)>,
) -> Result<StoragePlan, PlanError> {
    let (wanted, mounts) = mounts.into_iter().unzip();
    let facts = HostFacts { root: facts_of_root(&rootfs), mounts };
    plan(&request(rootfs, wanted), &facts, POLICY)
}

/// The seed takes for a layer what is called `layer.erofs`, and nothing else.
#[test]
fn l8_what_is_a_layer_is_not_told_by_its_name() {
    let disk = DiskFacts { kind: Some(file(9)), ..DiskFacts::default() };
    let facts = MountFacts { kind: Some(file(9)), disk, ..MountFacts::default() };
    let options = ["ro", "io.katacontainers.fs-opt.block_device=file"];
    let volume = mount("/data", "erofs", "/volumes/layer.erofs", &options);
    // The one layer is called `0`.
    let plan = planned(world::one_layer(), vec![(volume, facts)]).unwrap();
    let holds: Vec<_> = plan.disks.iter().map(|disk| disk.holds).collect();
    assert_eq!((plan.layers, &*holds), (1, &[DiskUse::Layer, DiskUse::Volume][..]));
    assert_eq!(
        plan.storages.iter().filter(|storage| storage.mount_point.as_str().contains("layer.erofs")).count(),
        0
    );
}

/// The seed logs the error of a volume's disk and shares the directory instead, or starts without the volume.
#[test]
fn l9_a_volume_whose_disk_is_used_is_an_error_of_the_container() {
    let uses = vec![DeviceUse::Claimed];
    let disk = DiskFacts { kind: Some(block(8, 32)), read_only: false, uses };
    let facts = MountFacts { direct: Some((volume_info(), block(8, 32))), disk, ..directory() };
    let error = planned(world::one_layer(), vec![(bind("/data", "/csi/volume"), facts)]).unwrap_err();
    assert!(matches!(error, PlanError::Disk(DiskRefusal::Claimed { .. })), "{error}");
}

/// The seed plugs the disk below a directory, and mounts it as the container's root.
#[test]
fn l49_a_used_disk_is_never_the_root() {
    let root = |uses| {
        let rootfs = Rootfs::of_mounts(&[world::raw_mount("ext4", "/dev/sda1", &["rw"])]).unwrap();
        let disk = DiskFacts { kind: Some(block(8, 1)), read_only: false, uses };
        let facts = HostFacts { root: RootFacts::Disk(disk), mounts: Vec::new() };
        plan(&request(rootfs, Vec::new()), &facts, POLICY)
    };
    assert_eq!(root(Vec::new()).unwrap().disks.len(), 1);
    let device = vc_mountinfo::DeviceNumber::new(8, 1);
    let mounted = root(vec![DeviceUse::Mounted { device, mount_point: "/".into() }]).unwrap_err();
    assert!(matches!(&mounted, PlanError::Disk(DiskRefusal::Mounted { .. })), "{mounted}");
}

/// The seed notes a file system for what it never plugged, and then unplugs nothing by no name.
#[test]
fn l13_an_image_is_a_disk_and_a_directory_is_an_error() {
    let root = |kind| {
        let rootfs = Rootfs::of_mounts(&[world::raw_mount("ext4", "/images/root", &[])]).unwrap();
        let disk = DiskFacts { kind, ..DiskFacts::default() };
        let facts = HostFacts { root: RootFacts::Disk(disk), mounts: Vec::new() };
        plan(&request(rootfs, Vec::new()), &facts, POLICY)
    };
    assert_eq!(root(Some(file(3))).unwrap().disks.len(), 1);
    for kind in [Some(PathKind::Directory), None] {
        assert!(matches!(root(kind), Err(PlanError::RootDisk(_))));
    }
}

/// The seed never tells the hypervisor that a root is read-only.
#[test]
fn l15_a_read_only_root_reaches_the_disk_and_the_mount() {
    let root = |options: &[&str], read_only| {
        let rootfs = Rootfs::of_mounts(&[world::raw_mount("xfs", "/dev/sdb", options)]).unwrap();
        let disk = DiskFacts { kind: Some(block(8, 16)), read_only, uses: Vec::new() };
        let facts = HostFacts { root: RootFacts::Disk(disk), mounts: Vec::new() };
        plan(&request(rootfs, Vec::new()), &facts, POLICY).unwrap()
    };
    for plan in [root(&["ro"], false), root(&["rw"], true)] {
        assert_eq!(plan.disks[0].access, Access::ReadOnly);
        assert_eq!(plan.storages[0].options, ["ro", "nouuid"]);
    }
    assert_eq!(root(&["rw"], false).disks[0].access, Access::ReadWrite);
}

/// What the host has mounted is never attached for writing: ext4 does not survive it.
#[test]
fn an_image_to_write_to_is_refused_while_the_host_has_it() {
    let list = [
        world::raw_mount("erofs", "/layers/a", &["ro", "loop"]),
        world::raw_mount("ext4", "/snapshots/1/rwlayer.img", &["rw", "loop"]),
        world::raw_mount(
            "format/overlay",
            "overlay",
            &["lowerdir={{ mount 0 }}", "upperdir={{ mount 1 }}/upper", "workdir={{ mount 1 }}/work"],
        ),
    ];
    let rootfs = Rootfs::of_mounts(&list).unwrap();
    let RootFacts::Layers { layers, .. } = facts_of_root(&rootfs) else { panic!("layers are expected") };
    let of = |kind, read_only, uses| {
        let upper = Some(DiskFacts { kind, read_only, uses });
        let facts =
            HostFacts { root: RootFacts::Layers { layers: layers.clone(), upper }, mounts: Vec::new() };
        plan(&request(rootfs.clone(), Vec::new()), &facts, POLICY)
    };
    assert_eq!(of(Some(file(5)), false, Vec::new()).unwrap().disks.len(), 2);
    let used = DeviceUse::Loop { device: vc_mountinfo::DeviceNumber::new(7, 4), number: 4 };
    let refused = of(Some(file(5)), false, vec![used]);
    assert!(matches!(refused, Err(PlanError::Disk(DiskRefusal::Loop { number: 4, .. }))), "{refused:?}");
    assert!(matches!(of(Some(file(5)), true, Vec::new()), Err(PlanError::RootAccess(_))));
    assert!(matches!(of(None, false, Vec::new()), Err(PlanError::RootDisk(_))));
}

#[test]
fn one_device_is_plugged_and_mounted_once_whatever_uses_it() {
    let disk = DiskFacts { kind: Some(block(8, 16)), ..DiskFacts::default() };
    let facts = || MountFacts { kind: Some(block(8, 16)), disk: disk.clone(), ..MountFacts::default() };
    let mounts = vec![
        (mount("/a", "bind", "/dev/sdb", &["rbind", "ro"]), facts()),
        (mount("/b", "bind", "/dev/disk/by-id/x", &["rbind"]), facts()),
    ];
    let plan = planned(world::one_layer(), mounts).unwrap();
    assert_eq!((plan.disks.len(), plan.disks[1].access), (2, Access::ReadWrite));
    let volumes = plan.storages.iter().filter(|storage| storage.mount_point.as_str().contains("/storage/"));
    assert_eq!(volumes.count(), 1);
    let options = |index: usize| match &plan.mounts[index].edit {
        Edit::Replace { options, .. } => options.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((options(0), options(1)), (vec!["rbind".to_owned(), "ro".into()], vec!["rbind".to_owned()]));
}

/// Kinds of layers are mixed where a snapshotter has some of them on devices of its own.
#[test]
fn layers_that_are_block_devices_are_disks_however_many_they_are() {
    let rootfs = layers(6);
    let RootFacts::Layers { layers, .. } = facts_of_root(&rootfs) else { panic!("layers are expected") };
    let planned = |change: &dyn Fn(&mut Vec<LayerFacts>)| {
        let mut layers = layers.clone();
        let (number, path) = (DeviceNumber::new(7, 3).unwrap(), HostPath::new("/dev/loop3").unwrap());
        layers[3].image = DeviceSource::Block { number, path };
        change(&mut layers);
        let facts = HostFacts { root: RootFacts::Layers { layers, upper: None }, mounts: Vec::new() };
        plan(&request(rootfs.clone(), Vec::new()), &facts, POLICY)
    };
    let plan = planned(&|_| {}).unwrap();
    assert_eq!(plan.disks.len(), 6, "a disk each");
    assert_eq!(plan.disks[3].paths()[0].to_string(), "/dev/loop3");
    assert!(plan.disks.iter().all(|disk| disk.request().is_ok() && disk.holds == DiskUse::Layer));
    // Where they would have to be partitions, it is said why they are not.
    let twice = planned(&|layers| layers[1] = layers[0].clone()).unwrap_err();
    let blobs = planned(&|layers| layers[0].blobs = vec![layers[1].image.clone()]).unwrap_err();
    for refusal in [twice, blobs] {
        let is_told = matches!(&refusal, PlanError::Unsupported(Unsupported::BlockLayer(_)));
        assert!(is_told && refusal.to_string().contains("/dev/loop3 is a block device"), "{refusal}");
    }
}

#[test]
fn one_layer_twice_is_two_partitions() {
    let image = |name: &str| {
        let image = HostPath::new(name).unwrap();
        LayerSource::Image { image, devices: Vec::new(), verity: None }
    };
    let upper = Upper::Memory { unused: None };
    let rootfs =
        Rootfs::Layers(Layers { layers: vec![image("/a"), image("/a")], upper, options: Vec::new() });
    let RootFacts::Layers { mut layers, .. } = facts_of_root(&rootfs) else { panic!("layers are expected") };
    layers[1] = layers[0].clone();
    let facts = HostFacts { root: RootFacts::Layers { layers, upper: None }, mounts: Vec::new() };
    let plan = plan(&request(rootfs, Vec::new()), &facts, POLICY).unwrap();
    assert_eq!((plan.disks.len(), plan.disks[0].images.len()), (1, 2));
}

#[test]
fn a_machine_without_disks_is_told_so() {
    let facts = HostFacts { root: facts_of_root(&world::one_layer()), mounts: Vec::new() };
    let policy = MountPolicy { disks: false, ..POLICY };
    let error = plan(&request(world::one_layer(), Vec::new()), &facts, policy).unwrap_err();
    assert!(matches!(error, PlanError::NoDisks(_)), "{error}");
}

#[test]
fn a_sandbox_may_share_its_memory() {
    let rootfs = world::one_layer();
    let facts = MountFacts { kind: Some(PathKind::Directory), ..MountFacts::default() };
    let facts = HostFacts { root: facts_of_root(&rootfs), mounts: vec![facts] };
    let wanted = mount("/dev/shm", "bind", "/run/pod/shm", &["bind", "nosuid", "size=64k"]);
    let request = request(rootfs, vec![wanted]);
    let edit = |policy| plan(&request, &facts, policy).unwrap().mounts.remove(0).edit;
    let own = edit(POLICY);
    assert!(matches!(&own, Edit::Replace { kind, .. } if kind == "tmpfs"), "{own:?}");
    let options = ["bind", "nosuid"].map(str::to_owned).into();
    let shared = Edit::Replace { kind: "bind".into(), source: "/dev/shm".into(), options };
    assert_eq!(edit(MountPolicy { shared_memory: true, ..POLICY }), shared);
}

fn plan_of_nydus(policy: MountPolicy) -> Result<StoragePlan, PlanError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rootfs/nydus.json");
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mounts: Vec<Mount> = serde_json::from_value(value["mounts"].clone()).unwrap();
    let rootfs = Rootfs::of_mounts(&mounts).unwrap();
    let facts = HostFacts { root: facts_of_root(&rootfs), mounts: Vec::new() };
    plan(&request(rootfs, Vec::new()), &facts, policy)
}

/// The guest mounts what nydusd serves one directory higher, so that images are beside what is shared. To the
/// container all is where it was.
#[test]
fn the_server_of_what_is_shared_decides_where_the_guest_mounts_it() {
    let rootfs = world::one_layer();
    let facts = HostFacts { root: facts_of_root(&rootfs), mounts: vec![directory()] };
    let request = request(rootfs, vec![bind("/data", "/srv/data")]);
    let plan = |policy| plan(&request, &facts, policy).unwrap();
    let (by_virtiofsd, by_nydusd) = (plan(POLICY), plan(BY_NYDUSD));
    let share = |plan: &StoragePlan| plan.storages[0].mount_point.to_string();
    assert_eq!(share(&by_virtiofsd), "/run/kata-containers/shared/containers");
    assert_eq!(share(&by_nydusd), "/run/kata-containers/shared");
    assert_eq!(by_virtiofsd.mounts, by_nydusd.mounts);
    assert_eq!(
        [&by_virtiofsd, &by_nydusd, &plan(MountPolicy::new(SharedFs::None))].map(StoragePlan::shared_fs),
        [SharedFs::VirtioFs, SharedFs::Nydus, SharedFs::None]
    );
}

/// A guest goes on for a while with what it has found by a name.
#[test]
fn a_number_is_behind_every_name_that_is_shared_wherever_it_is_told() {
    let source = HostPath::new("/srv/root").unwrap();
    let rootfs = Rootfs::Directory { source, read_only: false };
    let watched = MountFacts { files: 3, fs_type: Some("tmpfs".into()), ..directory() };
    let map = "/var/lib/kubelet/pods/1/volumes/kubernetes.io~configmap/data";
    let facts = HostFacts { root: facts_of_root(&rootfs), mounts: vec![directory(), watched] };
    let wanted = vec![bind("/data", "/srv/data"), bind("/etc/app", map)];
    let request = request(rootfs, wanted);
    let text = |plan: &StoragePlan| format!("{plan}\n{}", serde_json::to_string(plan).unwrap());
    for policy in [POLICY, BY_NYDUSD] {
        let plan = plan(&request, &facts, policy).unwrap();
        assert_eq!((plan.shares.len(), plan.shares[2].watched), (3, true));
        let mut again = plan.clone();
        again.number_shares(7);
        let named = plan.shares.iter().fold(text(&plan), |text, share| {
            assert!(text.matches(&share.name).count() > 3, "{}", share.name);
            text.replace(&share.name, &format!("{}-7", share.name))
        });
        assert_eq!(text(&again), named);
    }
}

/// A guest keeps what it has seen of an image.
#[test]
fn another_image_of_nydus_for_a_container_of_the_same_name_has_paths_of_its_own() {
    let mut plan = plan_of_nydus(BY_NYDUSD).unwrap();
    plan.number_shares(0);
    check("root-nydus", &Ok(plan.clone()));
    plan.number_shares(2);
    check("root-nydus-again", &Ok(plan));
}

#[test]
fn an_image_of_nydus_without_nydusd_is_refused_by_what_is_to_be_configured() {
    for has in [SharedFs::None, SharedFs::VirtioFs] {
        let error = plan_of_nydus(MountPolicy::new(has)).unwrap_err();
        assert_eq!(error, PlanError::Unsupported(Unsupported::Nydus(has)));
        assert!(error.to_string().contains("shared_fs must be virtio-fs-nydus"), "{error}");
    }
}

#[test]
fn facts_about_something_else_are_refused() {
    let rootfs = world::one_layer();
    let facts = HostFacts { root: RootFacts::Disk(DiskFacts::default()), mounts: Vec::new() };
    assert!(matches!(
        plan(&request(rootfs.clone(), Vec::new()), &facts, POLICY),
        Err(PlanError::Facts { .. })
    ));
    let facts = HostFacts { root: facts_of_root(&rootfs), mounts: Vec::new() };
    let wanted = vec![bind("/a", "/b")];
    assert!(matches!(plan(&request(rootfs, wanted), &facts, POLICY), Err(PlanError::Facts { .. })));
    let option =
        Rootfs::of_mounts(&[world::raw_mount("overlay", "overlay", &["lowerdir=/a", "metacopy=on"])]);
    let option = planned(option.unwrap(), Vec::new()).unwrap_err();
    assert!(matches!(option, PlanError::Unsupported(Unsupported::OverlayOption(_))), "{option}");
}

#[test]
fn annotations_have_a_say_and_malformed_ones_are_refused() {
    let name = "io.katacontainers.config.runtime.disable_guest_empty_dir";
    let of = |value| POLICY.with_annotations([("other", "x"), (name, value)]);
    assert!(!of("true").unwrap().local_empty_dir && of("false").unwrap().local_empty_dir);
    assert_eq!(of("yes").unwrap_err().value, "yes");
}

#[test]
fn a_tree_is_for_people_and_has_every_reason() {
    let facts = MountFacts { fs_type: Some("ext4".into()), ..directory() };
    let plan = planned(world::one_layer(), vec![(bind("/data", "/srv/a\nb"), facts)]).unwrap();
    let tree = plan.to_string();
    assert!(tree.starts_with("container web\n├─ root file system: layers"), "{tree}");
    for part in
        [&*plan.root.reason, &*plan.mounts[0].decision.reason, "/srv/a\u{fffd}b", "plug disk 0 (read-only)"]
    {
        assert!(tree.contains(part), "{part} is not in\n{tree}");
    }
    assert!(tree.lines().all(|line| !line.chars().any(char::is_control)));
}

fn layers(count: usize) -> Rootfs {
    let image = |n| LayerSource::Image {
        image: HostPath::new(format!("/layers/{n}")).unwrap(),
        devices: Vec::new(),
        verity: None,
    };
    Rootfs::Layers(Layers {
        layers: (0..count).map(image).collect(),
        upper: Upper::Memory { unused: None },
        options: Vec::new(),
    })
}

fn plugged(plan: &StoragePlan) -> Vec<DiskPlug> {
    let disk = |n: usize| DiskPlug {
        id: format!("disk{n}").parse().unwrap(),
        location: GuestLocation::Pci(format!("{:02x}/00", n % 32).parse().unwrap()),
    };
    (0..plan.disks.len()).map(disk).collect()
}

#[test]
fn every_disk_needs_its_plug() {
    let plan = planned(layers(3), Vec::new()).unwrap();
    assert_eq!(plan.resolve(&plugged(&plan)).unwrap().len(), 4);
    let few = plan.resolve(&plugged(&plan)[..2]);
    assert_eq!(few, Err(PlanError::DiskCount { planned: 3, plugged: 2 }));
}

proptest! {
    #[test]
    fn d1_layers_out_are_layers_in_and_in_order(count in 1usize..300) {
        let plan = planned(layers(count), Vec::new()).unwrap();
        let images: Vec<_> = plan.disks.iter().flat_map(|disk| &disk.images).collect();
        prop_assert_eq!(images.len(), count);
        for (n, image) in images.iter().enumerate() {
            let name = format!("/layers/{n}");
            let is_layer = matches!(image, vc_device::DeviceSource::File { path, .. } if path.to_string() == name);
            prop_assert!(is_layer, "{} is expected", name);
        }
        let disks = plugged(&plan);
        let storages = plan.resolve(&disks).unwrap();
        let (overlay, lower) = storages.split_last().unwrap();
        prop_assert_eq!(lower.len(), count);
        let names: Vec<_> = lower.iter().map(|storage| storage.mount_point.as_str()).collect();
        prop_assert_eq!(&overlay.options[0], &format!("lowerdir={}", names.join(":")));
        for (n, storage) in lower.iter().enumerate() {
            let packed = count > 4;
            let (disk, partition) = if packed { (n / 128, n % 128 + 1) } else { (n, 0) };
            prop_assert_eq!(&storage.source, &disks[disk].location.to_string());
            let number = format!("X-kata.partition-number={partition}");
            prop_assert_eq!(storage.options.contains(&number), packed);
        }
    }

    /// What no two of which may be mixed up: each mount keeps its place, and names are never shared.
    #[test]
    fn mounts_out_are_mounts_in(destinations in prop::collection::vec("/[a-z/. ]{0,12}", 0..20)) {
        let mounts: Vec<_> = destinations.iter().map(|d| (bind(d, "/srv/data"), directory())).collect();
        let plan = planned(world::one_layer(), mounts).unwrap();
        let out: Vec<_> = plan.mounts.iter().map(|edit| edit.destination.clone()).collect();
        prop_assert_eq!(out, destinations);
        let names: std::collections::BTreeSet<_> = plan.shares.iter().map(|share| &share.name).collect();
        prop_assert_eq!(names.len(), plan.shares.len());
    }
}

#[test]
fn the_request_is_what_it_says() {
    let StorageRequest { container, huge_pages, .. } = request(world::one_layer(), Vec::new());
    assert_eq!((container.as_str(), huge_pages.get(&(2 << 20))), ("web", Some(&(64 << 20))));
}

/// The images of one layer are partitions of one disk, which has 128.
#[test]
fn d1_layers_with_blobs_keep_them_together_and_what_does_not_fit_is_refused() {
    let with_blobs = |counts: &[usize]| {
        let path = |name: String| HostPath::new(name).unwrap();
        let layer = |(n, blobs): (usize, &usize)| LayerSource::Image {
            image: path(format!("/layers/{n}")),
            devices: (0..*blobs).map(|m| path(format!("/layers/{n}/blob{m}"))).collect(),
            verity: None,
        };
        let layers = counts.iter().enumerate().map(layer).collect();
        let upper = Upper::Memory { unused: None };
        planned(Rootfs::Layers(Layers { layers, upper, options: Vec::new() }), Vec::new())
    };
    let plan = with_blobs(&[0, 100, 30, 0]).unwrap();
    let disks: Vec<_> = plan.disks.iter().map(|disk| disk.images.len()).collect();
    assert_eq!(disks, [1 + 101, 31 + 1]);
    let storages = plan.resolve(&plugged(&plan)).unwrap();
    assert!(storages[2].options.contains(&"X-kata.partition-number=1".to_owned()), "{:?}", storages[2]);
    assert!(storages[2].options.contains(&"X-vc.blob-partition=31".to_owned()), "{:?}", storages[2]);
    assert!(storages[3].options.contains(&"X-kata.partition-number=32".to_owned()), "{:?}", storages[3]);
    assert_eq!(with_blobs(&[127]).unwrap().disks[0].images.len(), 128);
    let refused = with_blobs(&[128]).unwrap_err();
    let most = matches!(&refused, PlanError::Unsupported(Unsupported::Blobs { blobs: 128, most: 127, .. }));
    assert!(most, "{refused}");
}
