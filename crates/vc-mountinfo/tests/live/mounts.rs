//! Which mount a path is on, each case by each way.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use vc_mountinfo::{Fields, Lookup, LookupError, Mount, Pin, Symlinks, Way};

use crate::kernel;
use crate::world::{World, in_private_world, needs_statmount, ways};

fn by_way(way: Way, path: &Path) -> Result<Mount<'static>, LookupError> {
    let mut lookup = Lookup::new().forced(way).fields(Fields::ALL);
    let found = lookup.at(path).map(Mount::into_owned);
    assert_eq!(lookup.way_taken(), Some(way));
    found
}

/// The source of the mount at `path`, which all ways agree on, as on all else.
#[track_caller]
fn source(path: &Path) -> String {
    let found: Vec<_> = ways()
        .into_iter()
        .map(|way| (way, by_way(way, path).unwrap_or_else(|e| panic!("{way:?}: {e:?}"))))
        .collect();
    for (way, mount) in &found {
        let mut comparable = mount.clone();
        comparable.unique_id = found[0].1.unique_id;
        assert_eq!(comparable, found[0].1, "{way:?}");
        assert_eq!(mount.mount_point.as_deref(), Some(path), "{way:?}");
    }
    let fast = Lookup::new().at(path).unwrap().into_owned();
    assert_eq!(fast.source, found[0].1.source);
    fast.source.into_owned().into_string().unwrap()
}

#[track_caller]
fn assert_no_mount_point(path: &Path) {
    for way in ways() {
        let found = by_way(way, path);
        assert!(matches!(found, Err(LookupError::NotMountPoint { .. })), "{way:?}: {found:?}");
    }
}

fn move_mount(from: &Path, to: &Path) {
    mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>).unwrap();
}

#[test]
fn l1_the_topmost_of_several_is_found() {
    in_private_world(|world| {
        let path = world.tmpfs("m/a", "first");
        world.tmpfs("m/a", "second");
        assert_eq!(source(&path), "second");
        world.tmpfs("m/a", "third");
        assert_eq!(source(&path), "third");
        umount2(&path, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(source(&path), "second");
    });
}

#[test]
fn a_mount_moved_over_a_later_one_is_found() {
    in_private_world(|world| {
        let early = world.tmpfs("m/early", "early");
        let late = world.tmpfs("m/late", "late");
        move_mount(&early, &late);
        assert_eq!(source(&late), "early");
        assert_no_mount_point(&early);
    });
}

#[test]
fn a_mount_put_beneath_does_not_show() {
    in_private_world(|world| {
        let path = world.tmpfs("m/top", "top");
        let other = world.tmpfs("m/other", "beneath");
        kernel::mount_beneath(kernel::clone_mount(&other).unwrap(), &path);
        assert_eq!(source(&path), "top");
        umount2(&path, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(source(&path), "beneath");
    });
}

#[test]
fn a_mount_on_a_parent_directory_hides_it() {
    in_private_world(|world| {
        let hidden = world.tmpfs("m/a/b", "hidden");
        world.tmpfs("m/a", "parent");
        fs::create_dir(&hidden).unwrap();
        assert_no_mount_point(&hidden);
        mount(Some("shown"), &hidden, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        assert_eq!(source(&hidden), "shown");
    });
}

#[test]
fn binds_tell_what_they_are_of() {
    in_private_world(|world| {
        world.tmpfs("m/a", "whole");
        world.dir("m/a/sub/dir");
        let bound = world.bind("m/a/sub/dir", "m/bound");
        assert_eq!(source(&bound), "whole");
        assert_eq!(by_way(Way::ParentWalk, &bound).unwrap().root.unwrap(), Path::new("/sub/dir"));

        fs::write(world.path("m/a/file"), "").unwrap();
        fs::write(world.path("m/onto"), "").unwrap();
        let (from, onto) = (world.path("m/a/file"), world.path("m/onto"));
        mount(Some(&from), &onto, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        assert_eq!(source(&onto), "whole");

        fs::remove_file(&from).unwrap();
        assert_eq!(source(&onto), "whole");
        let root = by_way(ways()[0], &onto).unwrap().root.unwrap();
        assert_eq!(root, Path::new("/file//deleted"));
    });
}

/// Names with every byte that some parser gets wrong.
const NAMES: [&[u8]; 9] = [
    b"sp ace",
    b"tab\there",
    b"new\nline",
    br"back\slash",
    br"a\040b",
    b"#hash",
    b"cr\rvt\x0bff\x0cdel\x7f",
    b"latin\xff\xa0",
    b"nbsp\xc2\xa0line\xe2\x80\xa8",
];

#[test]
fn l2_names_may_have_any_bytes() {
    in_private_world(|world| {
        for name in NAMES {
            let name = std::ffi::OsStr::from_bytes(name);
            let path = world.dir(Path::new("m").join(name));
            mount(Some(name), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            for way in ways() {
                let found = by_way(way, &path).unwrap();
                assert_eq!(*found.source, *name, "{way:?}");
                assert_eq!(*found.mount_point.unwrap(), path, "{way:?}");
            }
        }
    });
}

#[test]
fn an_empty_source_is_empty_and_none_is_none() {
    in_private_world(|world| {
        assert_eq!(source(&world.tmpfs("m/empty", "")), "");
        let path = world.dir("m/none");
        mount(None::<&str>, &path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        assert_eq!(source(&path), "none");
    });
}

#[test]
fn read_only_mounts_and_filesystems_are_told() {
    in_private_world(|world| {
        let path = world.tmpfs("m/a", "a");
        let none = None::<&str>;
        #[track_caller]
        fn check(path: &Path, want: bool) {
            ways()
                .into_iter()
                .for_each(|way| assert_eq!(by_way(way, path).unwrap().read_only, want, "{way:?}"));
        }
        check(&path, false);
        mount(none, &path, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY, none).unwrap();
        check(&path, true);
        mount(none, &path, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, none).unwrap();
        mount(none, &path, none, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).unwrap();
        check(&path, true);
    });
}

#[test]
fn l3_symlinks_are_followed_as_asked() {
    in_private_world(|world| {
        world.tmpfs("m/real/a", "a");
        std::os::unix::fs::symlink("real", world.path("m/link")).unwrap();
        std::os::unix::fs::symlink("a", world.path("m/real/last")).unwrap();
        let (middle, last) = (world.path("m/link/a"), world.path("m/link/last"));
        for way in ways() {
            let mut strict = Lookup::new().forced(way);
            assert_eq!(*strict.at(&middle).unwrap().source, *"a", "{way:?}");
            assert!(matches!(strict.at(&last), Err(LookupError::NotMountPoint { .. })), "{way:?}");
            let mut following = Lookup::new().forced(way).symlinks(Symlinks::Follow);
            assert_eq!(*following.at(&last).unwrap().source, *"a", "{way:?}");
        }
    });
}

#[test]
fn what_is_not_there_is_told_from_what_is_no_mount_point() {
    in_private_world(|world| {
        assert_no_mount_point(&world.dir("m/plain"));
        for way in ways() {
            let missing = by_way(way, &world.path("m/missing"));
            let Err(LookupError::Stat { source, .. }) = missing else { panic!("{way:?}: {missing:?}") };
            assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
        }
    });
}

#[test]
fn open_directories_serve_as_start_and_as_place() {
    in_private_world(|world| {
        let path = world.tmpfs("m/deep/a", "a");
        let deep = fs::File::open(world.path("m/deep")).unwrap();
        let pin = Pin::open(&path, Symlinks::NoFollow).unwrap();
        for way in ways() {
            let mut lookup = Lookup::new().forced(way);
            assert_eq!(*lookup.at_dir(&deep, "a").unwrap().source, *"a", "{way:?}");
            assert_eq!(*lookup.of(&pin).unwrap().source, *"a", "{way:?}");
        }
        umount2(&path, MntFlags::MNT_DETACH).unwrap();
        for way in ways() {
            let gone = Lookup::new().forced(way).of(&pin).map(Mount::into_owned);
            assert!(gone.is_err(), "{way:?}: {gone:?}");
        }
    });
}

#[test]
fn many_are_found_in_the_order_asked() {
    in_private_world(|world| {
        let mut paths: Vec<_> = (0..30).map(|n| world.tmpfs(format!("m/{n}"), &n.to_string())).collect();
        paths.reverse();
        paths.insert(3, world.dir("m/plain"));
        let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap()).collect();
        let parent = fs::File::open(world.path("m")).unwrap();
        let pins: Vec<_> = paths.iter().map(|path| Pin::open(path, Symlinks::NoFollow).unwrap()).collect();
        let want: Vec<_> = (0..30).rev().map(|n| OsString::from(n.to_string())).collect();
        for way in ways() {
            let mut lookup = Lookup::new().forced(way);
            let by_path = lookup.all(&paths);
            let by_name = lookup.all_at_dir(&parent, &names);
            let by_pin = lookup.all_of(&pins);
            for found in [by_path, by_name, by_pin] {
                assert!(matches!(found[3], Err(LookupError::NotMountPoint { .. })), "{way:?}");
                let found = found.into_iter().flatten().map(|mount| mount.source.into_owned());
                assert_eq!(found.collect::<Vec<_>>(), want, "{way:?}");
            }
        }
    });
}

#[test]
fn other_mounts_coming_and_going_change_no_answer() {
    in_private_world(|world| {
        // More than one page of mountinfo, so that reading it takes several calls.
        let paths: Vec<_> = (0..100).map(|n| world.tmpfs(format!("m/{n}"), &n.to_string())).collect();
        let churn = world.dir("m/churn");
        let (stop, churned) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    mount(Some("churn"), &churn, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
                    umount2(&churn, MntFlags::MNT_DETACH).unwrap();
                    churned.fetch_add(1, Ordering::Relaxed);
                }
            });
            let ask = |n: usize, way| (n, by_way(way, &paths[n % 100]).map(|mount| mount.source));
            let ways = ways();
            let answers: Vec<_> = (0..900).map(|n| ask(n, ways[n % ways.len()])).collect();
            // The main thread must not panic before the other one is told to end.
            stop.store(true, Ordering::Relaxed);
            for (n, answer) in answers {
                assert_eq!(*answer.unwrap(), *(n % 100).to_string());
            }
        });
        assert!(churned.into_inner() > 0);
    });
}

/// Runs in a namespace of its own with a tmpfs at `m/a`, after `restrict` took rights from the thread.
fn restricted(restrict: impl FnOnce(&World) + Send, want: Way) {
    in_private_world(move |world| {
        let path = world.tmpfs("m/a", "a");
        if want == Way::Statmount {
            needs_statmount();
        }
        restrict(world);
        let mut lookup = Lookup::new().fields(Fields::ALL);
        let found = lookup.at(&path).unwrap().into_owned();
        assert_eq!((&*found.source, found.mount_point.as_deref()), ("a".as_ref(), Some(&*path)));
        assert_eq!(lookup.way_taken(), Some(want));
    });
}

#[test]
fn a_refused_statmount_falls_back_on_the_mount_id() {
    for errno in [libc::ENOSYS, libc::EPERM, libc::EINVAL] {
        restricted(move |_| kernel::refuse(&[(457, errno)]).unwrap(), Way::MountId);
    }
}

#[test]
fn refused_calls_fall_back_for_many_at_once_too() {
    let cases: [(&[(libc::c_long, i32)], Way); 2] =
        [(&[(457, libc::EPERM)], Way::MountId), (&[(libc::SYS_statx, libc::EPERM)], Way::ParentWalk)];
    for (refused, want) in cases {
        in_private_world(move |world| {
            let paths: Vec<_> = (0..30).map(|n| world.tmpfs(format!("m/{n}"), &n.to_string())).collect();
            kernel::refuse(refused).unwrap();
            let mut lookup = Lookup::new();
            for (n, found) in lookup.all(&paths).into_iter().enumerate() {
                assert_eq!(*found.unwrap().source, *n.to_string());
            }
            assert_eq!(lookup.way_taken(), Some(want));
        });
    }
}

#[test]
fn an_unprivileged_user_falls_back_where_calls_are_refused() {
    let cases: [(&[(libc::c_long, i32)], Way); 2] =
        [(&[(457, libc::EPERM)], Way::MountId), (&[(libc::SYS_statx, libc::EPERM)], Way::ParentWalk)];
    for (refused, want) in cases {
        let leave = move |world: &World| {
            for name in ["", "m"] {
                let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                fs::set_permissions(world.path(name), open).unwrap();
            }
            kernel::become_nobody().unwrap();
            kernel::refuse(refused).unwrap();
        };
        restricted(leave, want);
    }
}

#[test]
fn a_path_whose_symlinks_and_mounts_change_all_the_time_is_one_of_those_it_was() {
    in_private_world(|world| {
        // `m/link/a` is over here or over there, and over there mounted over again and again.
        world.tmpfs("m/here/a", "here");
        let there = world.tmpfs("m/there/a", "there");
        let (link, new) = (world.path("m/link"), world.path("m/new"));
        std::os::unix::fs::symlink("here", &link).unwrap();
        let (stop, changed) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    mount(Some("over"), &there, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
                    for target in ["there", "here"] {
                        std::os::unix::fs::symlink(target, &new).unwrap();
                        fs::rename(&new, &link).unwrap();
                    }
                    umount2(&there, MntFlags::MNT_DETACH).unwrap();
                    changed.fetch_add(1, Ordering::Relaxed);
                }
            });
            let path = link.join("a");
            let ask = |way| (way, by_way(way, &path));
            let ways = ways();
            let answers: Vec<_> = (0..600).map(|n| ask(ways[n % ways.len()])).collect();
            // The main thread must not panic before the other one is told to end.
            stop.store(true, Ordering::Relaxed);
            for (way, answer) in answers {
                match answer {
                    Ok(mount) => {
                        let source = mount.source.to_str().unwrap();
                        assert!(["here", "there", "over"].contains(&source), "{way:?}: {source}");
                    }
                    // It was unmounted between two calls.
                    Err(LookupError::NotListed { .. }) => {}
                    Err(error) => panic!("{way:?}: {error:?}"),
                }
            }
        });
        assert!(changed.into_inner() > 0);
    });
}

#[test]
fn a_refused_statx_falls_back_on_the_walk() {
    for errno in [libc::ENOSYS, libc::EPERM] {
        restricted(move |_| kernel::refuse(&[(libc::SYS_statx, errno)]).unwrap(), Way::ParentWalk);
    }
}

#[test]
fn an_unprivileged_user_finds_what_lies_behind_a_closed_directory() {
    let close_and_leave = |world: &World| {
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(world.path("m"), closed).unwrap();
        kernel::become_nobody().unwrap();
    };
    restricted(close_and_leave, Way::ParentWalk);
}

#[test]
fn an_unprivileged_user_has_symlinks_before_a_closed_directory_followed() {
    in_private_world(|world| {
        world.tmpfs("m/real", "real");
        world.tmpfs("m/real/closed/a", "a");
        std::os::unix::fs::symlink("real", world.path("m/link")).unwrap();
        let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(world.path(""), mode(0o755)).unwrap();
        fs::set_permissions(world.path("m/real/closed"), mode(0o700)).unwrap();
        kernel::become_nobody().unwrap();
        let mut lookup = Lookup::new();
        assert_eq!(*lookup.at(world.path("m/link/closed/a")).unwrap().source, *"a");
        assert_eq!(*lookup.covering(world.path("m/link/closed/b")).unwrap().source, *"real");
        assert_eq!(lookup.way_taken(), Some(Way::ParentWalk));
        assert!(lookup.at(world.path("m/link/closed/../closed/a")).is_err());
    });
}

#[test]
fn an_unprivileged_user_needs_no_fallback_for_what_is_open() {
    let leave = |world: &World| {
        let open = || std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(world.path(""), open()).unwrap();
        fs::set_permissions(world.path("m"), open()).unwrap();
        kernel::become_nobody().unwrap();
    };
    restricted(leave, Way::Statmount);
}

#[test]
fn in_a_chroot_each_way_finds_what_is_below_it() {
    in_private_world(|world| {
        world.tmpfs("m/root", "root");
        world.tmpfs("m/root/a", "first");
        world.tmpfs("m/root/a", "second");
        world.dir("m/root/proc");
        let none = None::<&str>;
        mount(Some("proc"), &world.path("m/root/proc"), Some("proc"), MsFlags::empty(), none).unwrap();
        nix::unistd::chroot(&world.path("m/root")).unwrap();
        std::env::set_current_dir("/").unwrap();
        assert_eq!(source(Path::new("/a")), "second");
    });
}
