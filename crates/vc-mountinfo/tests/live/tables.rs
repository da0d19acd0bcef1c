//! Whole tables, the views of other processes, and notice of changes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use vc_mountinfo::{
    CachedLookup, Fields, Lookup, LookupError, Mount, MountEvent, MountEvents, MountTable, MountWatch,
    Mounts, ProcessView, ProcessViewError, ReadError, Symlinks, Way, proc_mounts,
};

use crate::kernel;
use crate::world::{World, in_private_world, needs_statmount, skip, ways};

/// A deadline for what happens at once.
const SOON: Option<Duration> = Some(Duration::from_secs(20));

fn collect(mut mounts: Mounts) -> Vec<Mount<'static>> {
    let mut all = Vec::new();
    while let Some(mount) = mounts.next_mount().unwrap() {
        all.push(mount.into_owned());
    }
    all
}

/// Mounts of all the odd kinds.
fn odd_world(world: &World) {
    world.tmpfs("m/a", "under");
    world.tmpfs("m/a", "over");
    world.tmpfs("m/sp ace\\040\n", "");
    world.dir("m/a/sub");
    world.bind("m/a/sub", "m/bound");
    let other = world.tmpfs("m/other", "beneath");
    kernel::mount_beneath(kernel::clone_mount(&other).unwrap(), &world.path("m/bound"));
}

#[test]
fn the_kernels_list_and_the_table_are_the_same() {
    in_private_world(|world| {
        needs_statmount();
        odd_world(world);
        let mut by_kernel = collect(Mounts::by_kernel(Fields::ALL).unwrap());
        assert!(by_kernel.iter().all(|mount| mount.unique_id.is_some()));
        by_kernel.iter_mut().for_each(|mount| mount.unique_id = None);
        let by_table = collect(Mounts::by_table().unwrap());
        assert_eq!(by_kernel, by_table);
        assert_eq!(MountTable::read().unwrap().mounts, by_table);
        let text = fs::read("/proc/thread-self/mountinfo").unwrap();
        assert_eq!(MountTable::parse(&text).mounts, by_table);
        let cheap = collect(Mounts::all(Fields { mount_point: true, ..Fields::default() }).unwrap());
        assert!(cheap.iter().all(|mount| mount.fs_options.is_none() && mount.mount_point.is_some()));
        assert_eq!(cheap.len(), by_table.len());
    });
}

#[test]
fn more_mounts_than_one_batch_are_all_listed() {
    in_private_world(|world| {
        needs_statmount();
        for n in 0..1100 {
            world.tmpfs(format!("m/{n}"), &n.to_string());
        }
        let listed = collect(Mounts::by_kernel(Fields::default()).unwrap());
        assert_eq!(listed.len(), collect(Mounts::by_table().unwrap()).len());
        let last = listed.last().unwrap();
        assert_eq!(*last.source, *"1099");
    });
}

#[test]
fn a_refused_listing_falls_back_on_the_table() {
    in_private_world(|world| {
        world.tmpfs("m/a", "a");
        kernel::refuse(&[(458, libc::EPERM)]).unwrap();
        let fields = Fields { mount_point: true, ..Fields::default() };
        assert!(matches!(Mounts::by_kernel(fields), Err(ReadError::Io(_))));
        let all = collect(Mounts::all(fields).unwrap());
        assert!(all.iter().any(|mount| *mount.source == *"a"));
    });
}

#[test]
fn a_kept_table_answers_as_the_kernel_does() {
    in_private_world(|world| {
        odd_world(world);
        let table = MountTable::read().unwrap();
        for mount in &table.mounts {
            let path = mount.mount_point.as_deref().unwrap();
            if !path.starts_with(world.path("m")) {
                continue;
            }
            let asked = Lookup::new().fields(Fields::ALL).at(path).unwrap().into_owned();
            assert_eq!(table.at(path).unwrap().id, asked.id, "{path:?}");
            let inside = Lookup::new().covering(path.join(".")).unwrap().id;
            assert_eq!(table.covering(path.join("x")).unwrap().id, inside, "{path:?}");
        }
        assert_eq!(table.at(world.path("m/plain")), None);
    });
}

#[test]
fn proc_mounts_has_the_same_lines() {
    in_private_world(|world| {
        odd_world(world);
        let text = fs::read("/proc/thread-self/mounts").unwrap();
        let lines: Vec<_> = proc_mounts::parse(&text).map(Result::unwrap).collect();
        let table = MountTable::read().unwrap();
        assert_eq!(lines.len(), table.mounts.len());
        for (line, mount) in lines.iter().zip(&table.mounts) {
            assert_eq!((&line.source, &line.fs_type), (&mount.source, &mount.fs_type));
            assert_eq!(Some(&line.mount_point), mount.mount_point.as_ref());
        }
    });
}

#[test]
fn the_mount_that_covers_a_path_is_found_by_each_way() {
    in_private_world(|world| {
        world.tmpfs("m/a", "under");
        world.tmpfs("m/a", "over");
        let inside = world.dir("m/a/b/c");
        for way in ways() {
            let mut lookup = Lookup::new().forced(way);
            assert_eq!(*lookup.covering(&inside).unwrap().source, *"over", "{way:?}");
            assert_eq!(*lookup.covering(world.path("m/a")).unwrap().source, *"over", "{way:?}");
            assert!(matches!(lookup.covering(world.path("m/none")), Err(LookupError::Stat { .. })));
        }
    });
}

/// A process in a mount namespace of its own, where `m/a` is another mount; gone when dropped.
struct Other(Child);

impl Other {
    fn start(world: &World) -> Self {
        let script = format!(
            "mount -t tmpfs inner '{0}/a' && mkdir '{0}/a/root' && mount -t tmpfs deeper '{0}/a/root' && \
             ln -s '{0}/a/root' '{0}/a/link' && echo ready && read wait",
            world.path("m").display()
        );
        let mut child = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Ends its `read`. The process may be gone already.
        let _ = self.0.stdin.take().unwrap().write_all(b"\n");
        self.0.wait().unwrap();
    }
}

#[test]
fn another_process_sees_its_own_mounts() {
    in_private_world(|world| {
        let a = world.tmpfs("m/a", "outer");
        let other = Other::start(world);
        for way in ways() {
            let view = ProcessView::open(other.0.id()).unwrap();
            let mut there = Lookup::new().in_process(view).forced(way).fields(Fields::ALL);
            let mount = there.at(&a).unwrap();
            assert_eq!(
                (&*mount.source, mount.mount_point.as_deref()),
                ("inner".as_ref(), Some(&*a)),
                "{way:?}"
            );
            assert_eq!(*there.at(a.join("root")).unwrap().source, *"deeper", "{way:?}");
            assert!(there.at(world.path("m/none")).is_err(), "{way:?}");
            assert_eq!(*Lookup::new().forced(way).at(&a).unwrap().source, *"outer", "{way:?}");
        }
        let view = ProcessView::open(other.0.id()).unwrap();
        // A symlink leads where it leads over there.
        let mut there = Lookup::new().in_process(view).symlinks(Symlinks::Follow);
        assert_eq!(*there.at(a.join("link")).unwrap().source, *"deeper");
        let view = ProcessView::open(other.0.id()).unwrap();
        let table = MountTable::of_process(&view).unwrap();
        assert_eq!(*table.at(&a).unwrap().source, *"inner");
        assert_eq!(collect(Mounts::of_process(&view).unwrap()), table.mounts);
        drop(other);
        assert!(MountTable::of_process(&view).is_err(), "the process is gone");
    });
}

#[test]
fn a_process_in_a_chroot_sees_paths_from_its_root() {
    in_private_world(|world| {
        world.tmpfs("m/root", "root");
        world.tmpfs("m/root/a", "inside");
        let (to_main, from_thread) = std::sync::mpsc::channel();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
                nix::unistd::chroot(&world.path("m/root")).unwrap();
                to_main.send(nix::unistd::gettid().as_raw()).unwrap();
                // Until the other side is done, or has failed.
                let _ = wait.recv();
            });
            let thread = u32::try_from(from_thread.recv().unwrap()).unwrap();
            let look = |lookup: Lookup| {
                let view = ProcessView::open(thread).unwrap();
                let mut lookup = lookup.in_process(view).fields(Fields::ALL);
                let found = lookup.at("/a").map(Mount::into_owned);
                (found, lookup.way_taken())
            };
            let found = [None, Some(Way::MountId), Some(Way::ParentWalk)]
                .map(|way| look(way.map_or(Lookup::new(), |way| Lookup::new().forced(way))));
            drop(done);
            for (found, way) in found {
                let found = found.unwrap();
                let answer = (&*found.source, found.mount_point.as_deref());
                assert_eq!(answer, ("inside".as_ref(), Some(Path::new("/a"))), "{way:?}");
            }
        });
    });
}

#[test]
fn a_process_that_is_not_there_or_not_ours_is_told() {
    in_private_world(|_| {
        assert!(matches!(ProcessView::open(u32::MAX), Err(ProcessViewError::NoProcess { .. })));
        kernel::become_nobody().unwrap();
        assert!(matches!(ProcessView::open(1), Err(ProcessViewError::Open { .. })));
    });
}

#[test]
fn a_change_is_told_and_no_change_is_not() {
    in_private_world(|world| {
        let watch = MountWatch::open().unwrap();
        assert!(!watch.wait(Some(Duration::ZERO)).unwrap());
        let path = world.tmpfs("m/a", "a");
        assert!(watch.wait(SOON).unwrap());
        assert!(!watch.wait(Some(Duration::ZERO)).unwrap());
        umount2(&path, MntFlags::MNT_DETACH).unwrap();
        assert!(watch.wait(SOON).unwrap());
    });
}

#[test]
fn each_mount_that_comes_moves_or_goes_is_named() {
    in_private_world(|world| {
        needs_statmount();
        let mut events = match MountEvents::open() {
            Ok(events) => events,
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => skip("needs Linux 6.14"),
            Err(e) => panic!("{e}"),
        };
        assert_eq!(events.wait(Some(Duration::ZERO)).unwrap(), []);
        let path = world.tmpfs("m/a", "a");
        let id = Lookup::new().at(&path).unwrap().unique_id.unwrap();
        assert_eq!(events.wait(SOON).unwrap(), [MountEvent::Attached(id)]);
        let target = world.dir("m/b");
        mount(Some(&path), &target, None::<&str>, MsFlags::MS_MOVE, None::<&str>).unwrap();
        assert_eq!(events.wait(SOON).unwrap(), [MountEvent::Moved(id)]);
        umount2(&target, MntFlags::empty()).unwrap();
        assert_eq!(events.wait(SOON).unwrap(), [MountEvent::Detached(id)]);
    });
}

#[test]
fn the_cache_never_answers_for_another_mount() {
    in_private_world(|world| {
        needs_statmount();
        let mut cache = CachedLookup::new();
        let path = world.tmpfs("m/a", "first");
        for _ in 0..2 {
            assert_eq!(cache.at(&path).unwrap().source, "first");
        }
        world.tmpfs("m/a", "second");
        assert_eq!(cache.at(&path).unwrap().source, "second");
        umount2(&path, MntFlags::empty()).unwrap();
        assert_eq!(cache.at(&path).unwrap().source, "first");
        assert_eq!(cache.len(), 2);
        umount2(&path, MntFlags::empty()).unwrap();
        assert!(matches!(cache.at(&path), Err(LookupError::NotMountPoint { .. })));
        let directory = fs::File::open(world.path("m")).unwrap();
        world.tmpfs("m/a", "third");
        assert_eq!(cache.at_dir(&directory, "a").unwrap().source, "third");
        assert!(matches!(cache.at(Path::new("/nowhere")), Err(LookupError::Stat { .. })));
    });
}

#[test]
fn the_cache_works_without_unique_ids_too() {
    in_private_world(|world| {
        let path = world.tmpfs("m/a", "a");
        kernel::refuse(&[(457, libc::ENOSYS)]).unwrap();
        let mut cache = CachedLookup::new();
        assert_eq!(cache.at(&path).unwrap().source, "a");
        assert!(cache.is_empty());
    });
}

#[test]
fn an_unprivileged_user_may_list_and_watch() {
    in_private_world(|world| {
        fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        world.tmpfs("m/a", "a");
        kernel::become_nobody().unwrap();
        let fields = Fields { mount_point: true, ..Fields::default() };
        assert!(collect(Mounts::all(fields).unwrap()).iter().any(|mount| *mount.source == *"a"));
        assert!(!MountWatch::open().unwrap().wait(Some(Duration::ZERO)).unwrap());
        assert!(MountEvents::open().is_err());
    });
}
