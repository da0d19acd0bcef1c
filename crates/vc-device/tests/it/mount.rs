//! Mounts with a device behind them, and those without.

use std::fs;

use vc_device::{
    Access, BLOCK_FILE_OPTION, DeviceSource, FileId, Mount, MountError, PathKind, PmemBacking,
    request_of_disk, request_of_mount,
};
use vc_types::{DeviceNumber, HostPath};

use crate::directory::Directory;

fn root() -> DeviceNumber {
    DeviceNumber::new(8, 1).unwrap()
}

fn file() -> FileId {
    FileId { device: root(), inode: 7 }
}

fn ask(
    source: &str,
    kind: &str,
    block_file: bool,
    source_kind: &PathKind,
    pmem: Option<&PmemBacking>,
) -> Result<Option<DeviceSource>, MountError> {
    let source = HostPath::new(source).unwrap();
    let options = if block_file { vec!["ro".into(), BLOCK_FILE_OPTION.into()] } else { vec!["rbind".into()] };
    let mount = Mount { source: &source, kind, options: &options, source_kind, pmem };
    Ok(request_of_mount(&mount, Access::ReadOnly)?.map(|request| request.source))
}

fn path(text: &str) -> HostPath {
    HostPath::new(text).unwrap()
}

#[test]
fn what_is_behind_a_mount() {
    let block = PathKind::Block(root());
    let regular = PathKind::Regular(file());
    let disk = Some(DeviceSource::Block { number: root(), path: path("/s") });
    let image = Some(DeviceSource::File { file: file(), path: path("/s") });
    for (kind, block_file, source_kind, expected) in [
        ("bind", false, &block, &disk),
        ("bind", true, &block, &disk),
        ("ext4", true, &block, &disk),
        ("ext4", true, &regular, &image),
        ("bind", true, &regular, &image),
        ("bind", false, &regular, &None),
        ("ext4", false, &block, &None),
        ("tmpfs", false, &PathKind::Directory, &None),
        ("bind", false, &PathKind::Directory, &None),
        ("bind", false, &PathKind::Character(root()), &None),
        ("bind", false, &PathKind::Other, &None),
    ] {
        let found = ask("/s", kind, block_file, source_kind, None).unwrap();
        assert_eq!(&found, expected, "{kind} {block_file} {source_kind:?}");
    }
}

#[test]
fn l9_an_option_that_contradicts_the_source_is_an_error() {
    for source_kind in [PathKind::Directory, PathKind::Character(root()), PathKind::Other] {
        let refused = ask("/s", "bind", true, &source_kind, None);
        // The seed shared the host's directory instead, and the pod wrote to it.
        assert_eq!(refused, Err(MountError::NoImage { source_path: path("/s") }), "{source_kind:?}");
    }
}

#[test]
fn l14_a_root_file_system_or_a_direct_volume_is_a_disk_or_an_error() {
    let ask = |kind| request_of_disk(&path("/s"), &kind, Access::ReadWrite).map(|request| request.source);
    assert_eq!(ask(PathKind::Block(root())), Ok(DeviceSource::Block { number: root(), path: path("/s") }));
    assert_eq!(ask(PathKind::Regular(file())), Ok(DeviceSource::File { file: file(), path: path("/s") }));
    // The seed went on as if there were a disk: without its path below the root file system, or without a volume.
    for kind in [PathKind::Directory, PathKind::Character(root()), PathKind::Other] {
        assert_eq!(ask(kind), Err(MountError::NoDisk { device_path: path("/s") }));
    }
}

#[test]
fn a_directory_from_a_loop_device_is_memory_if_its_file_is_laid_out_for_it() {
    let backing = |has_signature, fs_type: Option<&str>| PmemBacking {
        file: file(),
        path: path("/images/a.img"),
        has_signature,
        fs_type: fs_type.map(str::to_owned),
    };
    let find =
        |backing: PmemBacking| ask("/mnt", "bind", false, &PathKind::Directory, Some(&backing)).unwrap();
    let memory = |fs_type: &str| {
        Some(DeviceSource::Pmem { file: file(), path: path("/images/a.img"), fs_type: fs_type.into() })
    };
    assert_eq!(find(backing(true, Some("xfs"))), memory("xfs"));
    assert_eq!(find(backing(true, None)), memory("ext4"));
    assert_eq!(find(backing(false, Some("xfs"))), None);
}

#[test]
fn l47_the_source_decides_and_not_the_destination() {
    // A mount has no destination here: whatever the host has at that path cannot matter.
    let found = ask("/dev/sdb", "bind", false, &PathKind::Block(root()), None).unwrap();
    assert_eq!(found, Some(DeviceSource::Block { number: root(), path: path("/dev/sdb") }));
}

#[test]
fn l49_a_directory_never_becomes_the_disk_that_it_is_on() {
    let directory = Directory::new();
    let kind = PathKind::try_from(&fs::metadata(directory.path()).unwrap()).unwrap();
    assert_eq!(kind, PathKind::Directory);
    assert_eq!(ask("/s", "bind", false, &kind, None), Ok(None));
}

#[test]
fn l50_a_node_is_itself_wherever_it_is() {
    let number = |kind: PathKind| match kind {
        PathKind::Block(number) | PathKind::Character(number) => number,
        other => panic!("{other:?}"),
    };
    // A link to a node stands for the node, not for the file system that holds the link.
    let directory = Directory::new();
    let link = directory.path().join("null");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    let kind = PathKind::try_from(&fs::metadata(&link).unwrap()).unwrap();
    assert_eq!(number(kind).to_string(), "1:3");
    let found = ask("/srv/disk", "bind", false, &PathKind::Block(root()), None).unwrap().unwrap();
    assert_eq!(found, DeviceSource::Block { number: root(), path: path("/srv/disk") });
}

#[test]
fn a_regular_file_is_known_by_its_inode() {
    let directory = Directory::new();
    let (one, other) = (directory.path().join("one"), directory.path().join("other"));
    fs::write(&one, "").unwrap();
    let before = PathKind::try_from(&fs::metadata(&one).unwrap()).unwrap();
    fs::rename(&one, &other).unwrap();
    assert_eq!(PathKind::try_from(&fs::metadata(&other).unwrap()).unwrap(), before);
}

#[test]
fn a_path_that_leads_elsewhere_when_it_is_opened_is_noticed() {
    let directory = Directory::new();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    fs::write(&one, "1").unwrap();
    fs::write(&two, "2").unwrap();
    let kind = |path| PathKind::try_from(&fs::File::open(path).unwrap().metadata().unwrap()).unwrap();
    let PathKind::Regular(asked) = kind(&one) else { panic!("a file") };
    let source = DeviceSource::File { file: asked, path: HostPath::new(&one).unwrap() };
    assert!(source.is_opened(&kind(&one)));
    fs::rename(&two, &one).unwrap();
    assert!(!source.is_opened(&kind(&one)));
    let disk = DeviceSource::Block { number: root(), path: path("/s") };
    assert!(disk.is_opened(&PathKind::Block(root())));
    assert!(!disk.is_opened(&PathKind::Character(root())));
}
