//! Real disks of a real host: whatever the host does with one is a refusal of its own.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use vc_device::DeviceIdentity;
use vc_storage::{
    DiskRefusal, Mount, MountPolicy, OpenError, OpenImages, PlanError, Rootfs, SharedFs, StoragePlan,
    StorageRequest, Surroundings, gather, plan,
};

/// A disk of 32 MiB, gone when it is dropped.
struct Disk {
    device: PathBuf,
    file: PathBuf,
    dir: tempfile::TempDir,
}

impl Disk {
    /// `None`, with the reason printed, where this user cannot have one.
    fn new() -> Option<Self> {
        if !vc_tests::root() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk");
        File::create(&file).unwrap().set_len(32 << 20).unwrap();
        let device = attach(&file);
        Some(Self { device, file, dir })
    }

    /// One with a file system.
    fn formatted() -> Option<Self> {
        let disk = Self::new()?;
        run("mkfs.ext4", &["-q", text(&disk.device)]);
        Some(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        detach(&self.device);
    }
}

fn attach(file: &Path) -> PathBuf {
    let device = Command::new("losetup").args(["--find", "--show"]).arg(file).output().unwrap();
    assert!(device.status.success(), "{}", String::from_utf8_lossy(&device.stderr));
    String::from_utf8(device.stdout).unwrap().trim().into()
}

fn detach(device: &Path) {
    run("losetup", &["--detach", text(device)]);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let ended = Command::new(program).args(arguments).output().unwrap();
    assert!(ended.status.success(), "{program}: {}", String::from_utf8_lossy(&ended.stderr));
}

/// The plan of a container whose root is this disk.
fn planned(disk: &Path, held: &[DeviceIdentity]) -> Result<(StoragePlan, OpenImages), DiskRefusal> {
    let mount = Mount { kind: "ext4".into(), source: text(disk).into(), options: vec!["rw".into()] };
    let rootfs = Rootfs::of_mounts(&[mount]).unwrap();
    let container = "web".parse().unwrap();
    let request = StorageRequest { container, rootfs, mounts: Vec::new(), huge_pages: Default::default() };
    let (facts, images) = gather(&request, &Surroundings { held, ..Surroundings::default() }).unwrap();
    match plan(&request, &facts, MountPolicy::new(SharedFs::None)) {
        Ok(plan) => Ok((plan, images)),
        Err(PlanError::Disk(refusal)) => Err(refusal),
        Err(other) => panic!("{other:?}"),
    }
}

#[track_caller]
fn refusal(disk: &Path) -> DiskRefusal {
    planned(disk, &[]).unwrap_err()
}

#[test]
fn a_mounted_disk_is_refused_and_so_is_one_that_is_mounted_after_the_plan() {
    let Some(disk) = Disk::formatted() else { return };
    let (free, images) = planned(&disk.device, &[]).unwrap();
    let at = disk.dir.path().join("mounted");
    fs::create_dir(&at).unwrap();
    run("mount", &[text(&disk.device), text(&at)]);
    let mounted = refusal(&disk.device);
    let late = images.device(&free.disks[0], "disk0".parse().unwrap(), None);
    // The file below is refused too: by its own name.
    let file = refusal(&disk.file);
    run("umount", &[text(&at)]);
    assert!(
        matches!(&mounted, DiskRefusal::Mounted { mount_point, .. } if *mount_point == at),
        "{mounted:?}"
    );
    assert!(matches!(late, Err(OpenError::InUse { .. })), "{late:?}");
    assert!(matches!(file, DiskRefusal::Loop { .. }), "{file:?}");
    // While the machine has it, the host cannot mount it.
    let device = images.device(&free.disks[0], "disk0".parse().unwrap(), None).unwrap();
    assert!(!Command::new("mount").arg(&disk.device).arg(&at).output().unwrap().status.success());
    assert!(matches!(refusal(&disk.device), DiskRefusal::Claimed { .. }));
    // But another container of the same machine can use it.
    let held = [free.disks[0].images[0].identity()];
    assert_eq!(planned(&disk.device, &held).unwrap().0, free);
    drop(device);
    assert_eq!(planned(&disk.device, &[]).unwrap().0, free);
}

#[test]
fn a_partition_that_is_used_is_a_refusal_of_its_disk_and_the_other_way_round() {
    let Some(disk) = Disk::formatted() else { return };
    run("addpart", &[text(&disk.device), "1", "2048", "16384"]);
    run("addpart", &[text(&disk.device), "2", "32768", "16384"]);
    let [first, second] = [1, 2].map(|n| PathBuf::from(format!("{}p{n}", disk.device.display())));
    run("mkfs.ext4", &["-q", text(&first)]);
    let at = disk.dir.path().join("mounted");
    fs::create_dir(&at).unwrap();
    run("mount", &[text(&first), text(&at)]);
    let whole = refusal(&disk.device);
    let beside = planned(&second, &[]);
    run("umount", &[text(&at)]);
    // A mount of the whole disk uses each partition.
    run("mkfs.ext4", &["-qF", text(&disk.device)]);
    run("mount", &[text(&disk.device), text(&at)]);
    let part = refusal(&first);
    run("umount", &[text(&at)]);
    for n in ["1", "2"] {
        run("delpart", &[text(&disk.device), n]);
    }
    assert!(matches!(&whole, DiskRefusal::Relative { how, .. } if how.contains("mounted at")), "{whole:?}");
    assert!(matches!(&part, DiskRefusal::Relative { .. }), "{part:?}");
    assert!(beside.is_ok(), "{beside:?}");
}

#[test]
fn swap_space_a_disk_below_another_and_a_claimed_one_are_refused() {
    let Some(disk) = Disk::new() else { return };
    let upper = attach(&disk.device);
    let below = refusal(&disk.device);
    detach(&upper);
    assert!(matches!(below, DiskRefusal::Loop { .. }), "{below:?}");
    let exclusive = File::options().read(true).custom_flags(libc_excl()).open(&disk.device).unwrap();
    let claimed = refusal(&disk.device);
    drop(exclusive);
    assert!(matches!(claimed, DiskRefusal::Claimed { .. }), "{claimed:?}");
    run("mkswap", &[text(&disk.device)]);
    let on = Command::new("swapon").arg(&disk.device).output().unwrap();
    if !on.status.success() {
        return vc_tests::skip(&format!("it needs swap: {}", String::from_utf8_lossy(&on.stderr).trim()));
    }
    let swap = refusal(&disk.device);
    run("swapoff", &[text(&disk.device)]);
    assert!(matches!(swap, DiskRefusal::Swap { .. }), "{swap:?}");
}

#[test]
fn a_disk_that_another_device_is_made_of_is_refused() {
    let Some(disk) = Disk::new() else { return };
    let name = format!("vc-test-{}", std::process::id());
    let table = format!("0 16384 linear {} 0", disk.device.display());
    let made = Command::new("dmsetup").args(["create", &name, "--table", &table]).output();
    match made {
        Ok(made) if made.status.success() => {}
        _ => return vc_tests::skip("it needs device-mapper, which this kernel does not have, and dmsetup"),
    }
    let held = refusal(&disk.device);
    run("dmsetup", &["remove", "--retry", &name]);
    assert!(matches!(&held, DiskRefusal::Held { holder, .. } if holder.starts_with("dm-")), "{held:?}");
    assert!(planned(&disk.device, &[]).is_ok());
}

fn libc_excl() -> i32 {
    rustix::fs::OFlags::EXCL.bits().cast_signed()
}
