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

/// Opens what is to be shown or copied, which others may write to: a path that leads over a link is refused.
pub(crate) fn open_source(path: &Path) -> Result<OwnedFd> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(rustix::fs::CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// What is at `name` below `directory`, as it is seen: the root of the topmost mount there.
pub(crate) fn open_beneath(directory: impl AsFd, name: impl AsRef<Path>) -> Result<OwnedFd> {
    openat2(directory, name.as_ref(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), beneath())
}

/// Opens the very file that a descriptor is of, to be used.
pub(crate) fn reopen(file: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(by_descriptor(file), flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}

/// A path to what a descriptor is of, whatever its name means by now (proc_pid_fd(5)).
fn by_descriptor(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

/// What is at `name` below `directory`, unless something is mounted there.
pub(crate) fn open_place(directory: impl AsFd, name: &str) -> Result<OwnedFd> {
    let resolve = beneath() | ResolveFlags::NO_XDEV;
    openat2(directory, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// A mount of what `source` is of that nobody sees yet (open_tree(2)).
pub(crate) fn detached(source: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(source, "", flags)
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
        unmount(by_descriptor(&top), UnmountFlags::DETACH)?;
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
