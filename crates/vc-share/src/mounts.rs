//! Mounts by descriptor: nothing is named twice, so nothing can change between two looks.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, mkdirat, openat, openat2,
    statx, unlinkat,
};
use rustix::io::{Errno, Result};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

/// What leads out of a directory, or by a link that may be a guest's, is refused by the kernel (openat2(2)).
fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

/// Opens a directory of the host.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// What is at `name` below `directory`, as it is seen: the root of the topmost mount there.
pub(crate) fn open_beneath(directory: impl AsFd, name: &str) -> Result<OwnedFd> {
    openat2(directory, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), beneath())
}

/// What is at `name` below `directory`, unless something is mounted there.
pub(crate) fn open_place(directory: impl AsFd, name: &str) -> Result<OwnedFd> {
    let resolve = beneath() | ResolveFlags::NO_XDEV;
    openat2(directory, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// A mount of `source` that nobody sees yet (open_tree(2)).
pub(crate) fn detached(source: &Path, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(rustix::fs::CWD, source, flags)
}

/// Puts a detached mount on top of what `place` is.
pub(crate) fn attach(mount: impl AsFd, place: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags)
}

/// Makes an empty directory, or an empty file, to mount on.
pub(crate) fn make_place(directory: impl AsFd, name: &str, is_directory: bool) -> Result<()> {
    if is_directory {
        return mkdirat(directory, name, Mode::RWXU);
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(directory, name, flags, Mode::RUSR | Mode::WUSR).map(drop)
}

/// Whether an open file is a directory.
pub(crate) fn is_directory(file: impl AsFd) -> Result<bool> {
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
    Ok(FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory)
}

/// Whether an open file is the root of a mount.
pub(crate) fn is_mount(file: impl AsFd) -> Result<bool> {
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// The most mounts that are taken from one place.
const MOST: usize = 32;

/// Takes away all that is mounted at `name`. Whoever still uses it keeps it until then (`MNT_DETACH`, umount(2)):
/// a server has files of it open as long as the guest remembers them.
pub(crate) fn detach_all(directory: impl AsFd, name: &str) -> Result<()> {
    for _ in 0..MOST {
        let top = open_beneath(&directory, name)?;
        if !is_mount(&top)? {
            return Ok(());
        }
        // By descriptor: this very mount, whatever the name means by now.
        unmount(format!("/proc/self/fd/{}", top.as_raw_fd()), UnmountFlags::DETACH)?;
    }
    Err(Errno::BUSY)
}

/// Removes an empty directory, or a file without content, on which nothing is mounted. Never what is in it.
pub(crate) fn remove_place(directory: impl AsFd, name: &str) -> Result<()> {
    let place = open_place(&directory, name)?;
    let stat = statx(&place, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE | StatxFlags::SIZE)?;
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::Directory => unlinkat(directory, name, AtFlags::REMOVEDIR),
        FileType::RegularFile if stat.stx_size == 0 => unlinkat(directory, name, AtFlags::empty()),
        _ => Err(Errno::NOTEMPTY),
    }
}
