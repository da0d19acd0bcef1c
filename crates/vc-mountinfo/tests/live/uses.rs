//! Whether a block device is in use.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use vc_mountinfo::{DeviceNumber, DeviceUse, DeviceUseError, LoopError, LoopFile, device_uses};

use crate::images::{self, Loop};
use crate::kernel;
use crate::world::{World, in_private_world, skip};

fn disk(world: &World) -> Loop {
    let file = world.path("disk");
    fs::File::create(&file).unwrap().set_len(1 << 24).unwrap();
    Loop::attach_writable(&file)
}

fn uses(device: &Loop) -> Vec<DeviceUse> {
    device_uses(device.path()).unwrap()
}

#[test]
fn a_free_disk_has_no_use() {
    in_private_world(|world| {
        assert_eq!(uses(&disk(world)), []);
    });
}

#[test]
fn a_mounted_disk_is_told_with_its_mount_points() {
    in_private_world(|world| {
        let image = images::make(world, "i.erofs");
        let device = Loop::attach(&image);
        let at = world.path("m/a");
        device.mount(&at);
        let bound = world.bind("m/a", "m/bound");
        let mounted = |at| DeviceUse::Mounted { device: device.device(), mount_point: at };
        assert_eq!(uses(&device), [mounted(at), mounted(bound)]);
    });
}

#[test]
fn a_disk_mounted_out_of_sight_is_claimed() {
    in_private_world(|world| {
        let image = images::make(world, "i.erofs");
        let device = Loop::attach(&image);
        let (to_main, from_thread) = std::sync::mpsc::channel();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let device = &device;
            scope.spawn(move || {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
                device.mount(&world.path("m/hidden"));
                to_main.send(()).unwrap();
                // Until the other side is done, or has failed.
                let _ = wait.recv();
            });
            from_thread.recv().unwrap();
            let found = uses(device);
            drop(done);
            assert_eq!(found, [DeviceUse::Claimed]);
        });
    });
}

#[test]
fn a_disk_under_a_loop_device_is_in_use() {
    in_private_world(|world| {
        let lower = disk(world);
        let upper = Loop::attach(&lower.path());
        assert_eq!(uses(&lower), [DeviceUse::Loop { device: lower.device(), number: upper.number }]);
        assert_eq!(LoopFile::behind(upper.device()).unwrap().path, lower.path());
    });
}

#[test]
fn swap_space_is_in_use() {
    in_private_world(|world| {
        let device = disk(world);
        let run = |program: &str| Command::new(program).arg(device.path()).output().unwrap();
        assert!(run("mkswap").status.success());
        let on = run("swapon");
        if !on.status.success() {
            skip(format!("needs swap: {}", String::from_utf8_lossy(&on.stderr).trim()));
        }
        let found = device_uses(device.path());
        assert!(run("swapoff").status.success());
        assert_eq!(found.unwrap(), [DeviceUse::Swap { device: device.device() }]);
        assert_eq!(uses(&device), []);
    });
}

#[test]
fn l5_partitions_count_for_their_disk_and_have_their_own_window() {
    in_private_world(|world| {
        let image = images::make(world, "i.erofs");
        let (start, length) = (1 << 20, 1 << 20);
        let mut bytes = vec![0; 1 << 22];
        let image = fs::read(&image).unwrap();
        bytes[1 << 20..][..image.len()].copy_from_slice(&image);
        fs::write(world.path("disk"), bytes).unwrap();
        let device = Loop::attach_writable(&world.path("disk"));
        if let Err(e) = kernel::add_partition(&device.handle, 1, start, length) {
            skip(format!("needs partitions on loop devices: {e}"));
        }
        let partition = PathBuf::from(format!("{}p1", device.path().display()));
        let number = fs::read_to_string(format!("/sys/class/block/loop{}p1/dev", device.number)).unwrap();
        let number: DeviceNumber = number.trim().parse().unwrap();

        let behind = LoopFile::behind(number).unwrap();
        assert_eq!((behind.number, behind.partition), (device.number, Some(1)));
        assert_eq!((behind.offset, behind.size_limit.unwrap().get()), (start, length));
        assert!(matches!(behind.whole_file(), Err(LoopError::Window { offset, .. }) if offset == start));

        let at = world.dir("m/a");
        images::mount_device(&partition, &at);
        let mounted = [DeviceUse::Mounted { device: number, mount_point: at }];
        assert_eq!(uses(&device), mounted, "the disk");
        assert_eq!(device_uses(&partition).unwrap(), mounted, "the partition");
    });
}

#[test]
fn a_name_that_changes_all_the_time_is_asked_about_as_one_device() {
    in_private_world(|world| {
        let free = disk(world);
        let mounted = Loop::attach(&images::make(world, "i.erofs"));
        mounted.mount(&world.path("m/a"));
        let (link, new) = (world.path("link"), world.path("new"));
        std::os::unix::fs::symlink(free.path(), &link).unwrap();
        let stop = AtomicBool::new(false);
        let found = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for device in [&mounted, &free] {
                        std::os::unix::fs::symlink(device.path(), &new).unwrap();
                        fs::rename(&new, &link).unwrap();
                    }
                }
            });
            let found: Vec<_> = (0..300).map(|_| device_uses(&link)).collect();
            stop.store(true, Ordering::Relaxed);
            found
        });
        for found in found {
            // A claim without a mount would be of the one device, and the rest of the answer of the other.
            let found = found.unwrap();
            assert!(matches!(found[..], [] | [DeviceUse::Mounted { .. }]), "{found:?}");
        }
    });
}

#[test]
fn what_cannot_be_told_is_an_error_not_a_no() {
    in_private_world(|world| {
        let device = disk(world);
        let file = device_uses(world.path("disk"));
        assert!(matches!(file, Err(DeviceUseError::NotBlockDevice { .. })), "{file:?}");
        assert!(matches!(device_uses(world.path("none")), Err(DeviceUseError::Read { .. })));
        kernel::become_nobody().unwrap();
        let refused = device_uses(device.path());
        assert!(matches!(refused, Err(DeviceUseError::Read { .. })), "{refused:?}");
    });
}
