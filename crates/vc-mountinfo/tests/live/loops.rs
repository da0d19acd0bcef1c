//! The file behind a loop device, in every state it can be in.

use std::fs::{self, File};
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use vc_mountinfo::{DeviceNumber, FileId, LoopError, LoopFile, Pin, Symlinks};

use crate::images::{self, Loop};
use crate::kernel;
use crate::world::{World, in_private_world, skip};

fn behind(device: &Loop) -> Result<LoopFile, LoopError> {
    LoopFile::behind(device.device())
}

/// A file of 1 MiB on the disk.
fn file(world: &World, name: &str) -> std::path::PathBuf {
    let path = world.path(name);
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    path
}

#[test]
fn the_whole_file_is_told_with_its_state() {
    in_private_world(|world| {
        let path = file(world, "a file \\ with\nodd bytes\n");
        let device = Loop::attach(&path);
        let found = behind(&device).unwrap();
        assert_eq!(found.whole_file().unwrap(), path);
        assert_eq!(found.number, device.number);
        assert_eq!(found.id, FileId::from(&path.metadata().unwrap()));
        assert!(found.read_only && found.autoclear && !found.direct_io);
        assert!(found.disk_sequence.is_some());
        assert_eq!((found.offset, found.size_limit, found.partition), (0, None, None));
        found.check_unchanged().unwrap();
    });
}

#[test]
fn the_name_is_the_files_own_not_the_one_it_was_opened_by() {
    in_private_world(|world| {
        let path = file(world, "real");
        std::os::unix::fs::symlink("real", world.path("link")).unwrap();
        let device = Loop::attach(&world.path("link"));
        assert_eq!(behind(&device).unwrap().path, path);
        fs::rename(&path, world.path("renamed")).unwrap();
        file(world, "real");
        assert_eq!(behind(&device).unwrap().path, world.path("renamed"));
    });
}

#[test]
fn a_file_renamed_or_deleted_since_is_told() {
    in_private_world(|world| {
        let path = file(world, "f");
        let device = Loop::attach(&path);
        let found = behind(&device).unwrap();
        found.check_unchanged().unwrap();
        fs::rename(&path, world.path("renamed")).unwrap();
        let now = found.check_unchanged();
        assert!(matches!(&now, Err(LoopError::Renamed { before, .. }) if *before == path), "{now:?}");
        fs::rename(world.path("renamed"), &path).unwrap();
        found.check_unchanged().unwrap();
        fs::remove_file(&path).unwrap();
        let now = found.check_unchanged();
        assert!(matches!(&now, Err(LoopError::Deleted { .. })), "{now:?}");
    });
}

#[test]
fn direct_io_and_writing_are_told() {
    in_private_world(|world| {
        let path = file(world, "f");
        let device = Loop::attach_writable(&path);
        assert!(!behind(&device).unwrap().read_only);
        match kernel::set_direct_io(&device.handle) {
            Ok(()) => assert!(behind(&device).unwrap().direct_io),
            Err(e) => skip(format!("needs a disk that takes direct I/O: {e}")),
        }
    });
}

#[test]
fn a_file_renamed_all_the_time_is_never_taken_for_another() {
    in_private_world(|world| {
        let device = Loop::attach(&file(world, "f0"));
        let stop = AtomicBool::new(false);
        let found = std::thread::scope(|scope| {
            scope.spawn(|| {
                // Never the same name twice.
                let names = (1_u64..).take_while(|_| !stop.load(Ordering::Relaxed));
                names.for_each(|n| {
                    fs::rename(world.path(format!("f{}", n - 1)), world.path(format!("f{n}"))).unwrap()
                });
            });
            let found: Vec<_> = (0..500).map(|_| behind(&device)).collect();
            stop.store(true, Ordering::Relaxed);
            found
        });
        let id = behind(&device).unwrap().id;
        for found in found {
            match found {
                Ok(file) => assert_eq!(file.id, id),
                Err(error) => assert!(matches!(error, LoopError::Renamed { .. }), "{error}"),
            }
        }
    });
}

#[test]
fn l5_a_window_of_a_file_is_not_the_whole_file() {
    in_private_world(|world| {
        let path = file(world, "f");
        let device = Loop::attach_part(&path, 4096, 8192);
        let found = behind(&device).unwrap();
        assert_eq!((found.offset, found.size_limit), (4096, NonZeroU64::new(8192)));
        let error = found.whole_file().unwrap_err();
        assert!(matches!(error, LoopError::Window { offset: 4096, .. }), "{error}");
        assert!(error.to_string().ends_with("from byte 4096, 8192 bytes"), "{error}");
    });
}

#[test]
fn l5_a_deleted_file_is_told_even_with_a_new_one_of_its_name() {
    in_private_world(|world| {
        let path = file(world, "f");
        let device = Loop::attach(&path);
        fs::remove_file(&path).unwrap();
        let is_deleted =
            |found: Result<_, _>| matches!(found, Err(LoopError::Deleted { path: p, .. }) if p == path);
        assert!(is_deleted(behind(&device)));
        file(world, "f");
        assert!(is_deleted(behind(&device)));
        // A file that happens to have the name the kernel makes up is another one.
        file(world, "f (deleted)");
        assert!(is_deleted(behind(&device)));
    });
}

#[test]
fn a_file_truly_named_deleted_is_found() {
    in_private_world(|world| {
        let path = file(world, "f (deleted)");
        assert_eq!(behind(&Loop::attach(&path)).unwrap().path, path);
    });
}

#[test]
fn l5_a_device_with_another_file_is_not_what_it_was() {
    in_private_world(|world| {
        let (first, second) = (file(world, "first"), file(world, "second"));
        let device = Loop::attach(&first);
        let before = behind(&device).unwrap();
        kernel::change_loop(&device.handle, &File::open(&second).unwrap()).unwrap();
        assert!(matches!(before.check_unchanged(), Err(LoopError::Rebound { .. })));
        let after = behind(&device).unwrap();
        assert_eq!(after.path, second);
        assert_ne!(after.disk_sequence, before.disk_sequence);
        // The first file again is another attachment all the same.
        kernel::change_loop(&device.handle, &File::open(&first).unwrap()).unwrap();
        assert!(matches!(before.check_unchanged(), Err(LoopError::Rebound { .. })));
    });
}

#[test]
fn a_file_of_another_mount_namespace_is_not_taken_for_one_here() {
    in_private_world(|world| {
        let inside = world.path("m/inside");
        let device = std::thread::scope(|scope| {
            let attach = || {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
                world.tmpfs("m", "another world");
                file(world, "m/inside");
                let device = Loop::attach(&inside);
                // The namespace ends with this thread; this keeps its mount, and so the file's name.
                (device, Pin::open(world.path("m"), Symlinks::NoFollow).unwrap())
            };
            scope.spawn(attach).join().unwrap()
        });
        assert!(matches!(behind(&device.0), Err(LoopError::Elsewhere { .. })), "nothing here");
        file(world, "m/inside");
        assert!(matches!(behind(&device.0), Err(LoopError::Elsewhere { .. })), "another file here");
    });
}

#[test]
fn a_path_too_long_for_sysfs_is_told() {
    in_private_world(|world| {
        let mut directory = File::open(world.path("")).unwrap();
        let name = "d".repeat(250);
        for _ in 0..17 {
            directory = kernel::make_dir(&directory, &name).unwrap();
        }
        let path = kernel::fd_path(&directory).join("f");
        File::create(&path).unwrap().set_len(4096).unwrap();
        let device = Loop::attach(&path);
        assert!(matches!(behind(&device), Err(LoopError::PathTooLong { .. })));
    });
}

#[test]
fn what_is_no_loop_device_or_has_no_file_is_told() {
    in_private_world(|world| {
        let disk = DeviceNumber::from_raw(Path::new("/").metadata().unwrap().dev());
        for device in [disk, DeviceNumber::new(7, 1_000_000)] {
            assert!(matches!(LoopFile::behind(device), Err(LoopError::NotLoop { .. })), "{device}");
        }
        let device = Loop::attach(&file(world, "f"));
        let before = behind(&device).unwrap();
        let number = device.device();
        kernel::detach_loop(&device.handle).unwrap();
        drop(device);
        // Someone else may have taken the device since, but not with this file.
        match LoopFile::behind(number) {
            Err(LoopError::Detached { .. }) => {}
            other => assert_ne!(other.unwrap().id, before.id),
        }
        let now = before.check_unchanged();
        assert!(matches!(now, Err(LoopError::Detached { .. } | LoopError::Rebound { .. })), "{now:?}");
    });
}

#[test]
fn an_unprivileged_user_is_told_what_is_missing() {
    in_private_world(|world| {
        let device = Loop::attach(&file(world, "f"));
        kernel::become_nobody().unwrap();
        let error = behind(&device).unwrap_err();
        assert!(matches!(error, LoopError::Device { .. }), "{error}");
        assert!(error.to_string().contains("only root"), "{error}");
    });
}

#[test]
fn a_mounted_loop_device_is_found_by_the_mounts_device() {
    in_private_world(|world| {
        let image = images::make(world, "i.erofs");
        let at = world.path("m/layer");
        let device = Loop::attach(&image);
        device.mount(&at);
        let mounted = DeviceNumber::from_raw(at.metadata().unwrap().dev());
        assert_eq!(LoopFile::behind(mounted).unwrap().path, image);
    });
}
