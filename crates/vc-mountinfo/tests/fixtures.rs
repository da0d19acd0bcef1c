//! Tables captured from real kernels; `fixtures/README.md` tells how each was made.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use vc_mountinfo::{MountTable, OverlayOptions, proc_mounts};

const MOUNTINFO: &[u8] = include_bytes!("fixtures/linux-6.18.mountinfo");
const MOUNTS: &[u8] = include_bytes!("fixtures/linux-6.18.mounts");

#[test]
fn every_odd_name_is_decoded() {
    let table = MountTable::parse(MOUNTINFO);
    assert_eq!((table.mounts.len(), table.malformed.len()), (30, 0));
    let names: [&[u8]; 9] = [
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
    for name in names.map(OsStr::from_bytes) {
        assert_eq!(*table.at(Path::new("/").join(name)).unwrap().source, *name);
    }
}

#[test]
fn the_visible_mount_is_found_by_parents() {
    let table = MountTable::parse(MOUNTINFO);
    let expected = [
        ("/", "world"),
        ("/empty", ""),
        ("/none", "none"),
        ("/dash", "-"),
        ("/over", "over-2"),
        ("/late", "moved-early"),
        ("/top", "top"),
        ("/p", "parent"),
        ("/onto", "world"),
        ("/bind", "shared"),
    ];
    for (path, source) in expected {
        assert_eq!(*table.at(path).unwrap().source, *source, "{path}");
    }
    assert_eq!(*table.covering("/p/c/d").unwrap().source, *"parent");
    assert_eq!(table.at("/p/c"), None);
    let root = |path| table.at(path).unwrap().root.as_deref().unwrap().to_str().unwrap();
    assert_eq!([root("/bind"), root("/onto")], ["/sub/dir", "/file//deleted"]);
    assert!(root("/nsf").starts_with("uts:["));
}

#[test]
fn the_overlays_directories_are_those_given() {
    let table = MountTable::parse(MOUNTINFO);
    let overlay =
        OverlayOptions::from_mount_table(table.at("/ov").unwrap().fs_options.as_deref().unwrap()).unwrap();
    let lower: Vec<_> = overlay.lower.iter().map(|lower| lower.path.to_str().unwrap()).collect();
    assert_eq!(lower, ["/l/a b", "/l/co:lon", "/l/com,ma", r"/l/b\s"]);
    assert_eq!(overlay.upper.as_deref(), Some(Path::new("/u:p")));
    assert_eq!(overlay.work.as_deref(), Some(Path::new("/wk")));
}

#[test]
fn proc_mounts_has_the_same_names() {
    let table = MountTable::parse(MOUNTINFO);
    let mounts: Vec<_> = proc_mounts::parse(MOUNTS).map(Result::unwrap).collect();
    assert_eq!(mounts.len(), table.mounts.len());
    for (line, mount) in mounts.iter().zip(&table.mounts) {
        assert_eq!((&line.source, Some(&line.mount_point)), (&mount.source, mount.mount_point.as_ref()));
    }
}
