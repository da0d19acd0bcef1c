//! Giving a volume to a group.
//!
//! Containers may write to the volume at the same time, so nothing is looked up twice by its name and no
//! link is followed.

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{Gid, fchownat};
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The group that a volume is to belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsGroup {
    /// The group's number.
    pub gid: u32,
    /// Whether a volume whose root is right is left as it is.
    pub only_on_mismatch: bool,
}

/// What the group may do with each file.
const READ_WRITE: u32 = 0o660;
const READ_ONLY: u32 = 0o440;
/// What it may do with directories besides; new entries inherit the group.
const DIRECTORY: u32 = 0o110 | SET_GID;
const SET_GID: u32 = 0o2000;

/// Deeper trees are refused; each level takes a descriptor.
const MAX_DEPTH: usize = 1024;

/// Gives everything at and below `root` to the group.
pub(super) fn give(root: &Path, group: FsGroup, read_only: bool) -> Result<(), Errno> {
    let root = open(root, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    if group.only_on_mismatch && is_right(&root, group.gid, read_only)? {
        return Ok(());
    }
    // What is in each directory on the way down and still to be done.
    let mut levels: Vec<(OwnedFd, Vec<OsString>)> = Vec::new();
    levels.extend(give_one(root, group.gid, read_only)?);
    while let Some((directory, names)) = levels.last_mut() {
        let Some(name) = names.pop() else {
            levels.pop();
            continue;
        };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let below = match openat(directory.as_fd(), name.as_os_str(), flags, Mode::empty()) {
            Ok(entry) => give_one(entry, group.gid, read_only)?,
            // Removed meanwhile.
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
        };
        levels.extend(below);
        if levels.len() > MAX_DEPTH {
            return Err(Errno::ELOOP);
        }
    }
    Ok(())
}

/// Gives only the directory `root` itself to the group, and lets new entries inherit it.
pub(super) fn give_root(root: &Path, gid: u32) -> Result<(), Errno> {
    let root = open(root, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    change(&root, gid, SET_GID, fstat(&root)?.st_mode)
}

fn is_right(root: &OwnedFd, gid: u32, read_only: bool) -> Result<bool, Errno> {
    let wanted = DIRECTORY | if read_only { READ_ONLY } else { READ_WRITE };
    let found = fstat(root)?;
    Ok(found.st_gid == gid && found.st_mode & wanted == wanted)
}

/// Changes one entry; of a directory also gives what is in it.
fn give_one(entry: OwnedFd, gid: u32, read_only: bool) -> Result<Option<(OwnedFd, Vec<OsString>)>, Errno> {
    let mode = fstat(&entry)?.st_mode;
    let rights = if read_only { READ_ONLY } else { READ_WRITE };
    match SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFLNK => Ok(None),
        SFlag::S_IFDIR => {
            change(&entry, gid, rights | DIRECTORY, mode)?;
            let names = std::fs::read_dir(by_descriptor(&entry)).and_then(|entries| {
                entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<Vec<_>, _>>()
            });
            Ok(Some((entry, names.map_err(|error| errno(&error))?)))
        }
        _ => change(&entry, gid, rights, mode).map(|()| None),
    }
}

fn change(entry: &OwnedFd, gid: u32, rights: u32, mode: u32) -> Result<(), Errno> {
    fchownat(entry, "", None, Some(Gid::from_raw(gid)), AtFlags::AT_EMPTY_PATH)?;
    // chown(2) may have cleared the bits above the permissions.
    let permissions = std::fs::Permissions::from_mode((mode | rights) & 0o7777);
    std::fs::set_permissions(by_descriptor(entry), permissions).map_err(|error| errno(&error))
}

/// A name that leads to the open file itself, for calls that take no `O_PATH` descriptor.
fn by_descriptor(entry: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", entry.as_raw_fd())
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::{MetadataExt, symlink};

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        create_dir(root.path().join("sub")).unwrap();
        write(root.path().join("sub/file"), "").unwrap();
        set_permissions(root.path().join("sub/file"), Permissions::from_mode(0o600)).unwrap();
        symlink("/dev/null", root.path().join("link")).unwrap();
        root
    }

    fn look(path: &Path) -> (u32, u32) {
        let entry = path.symlink_metadata().unwrap();
        (entry.gid(), entry.mode() & 0o7777)
    }

    fn is_root() -> bool {
        let is_root = nix::unistd::geteuid().is_root();
        if !is_root {
            eprintln!("skipped: only root can give files away");
        }
        is_root
    }

    #[test]
    fn everything_is_given_but_no_link_is_followed() {
        if !is_root() {
            return;
        }
        let root = tree();
        let null = look(Path::new("/dev/null"));
        give(root.path(), FsGroup { gid: 4711, only_on_mismatch: false }, false).unwrap();
        assert_eq!(look(&root.path().join("sub/file")), (4711, 0o660));
        assert_eq!(look(&root.path().join("sub")).0, 4711);
        assert_eq!(look(&root.path().join("sub")).1 & 0o2770, 0o2770);
        assert_eq!(look(root.path()).1 & 0o2770, 0o2770);
        assert_eq!(look(Path::new("/dev/null")), null);
    }

    #[test]
    fn a_volume_whose_root_is_right_stays_as_it_is() {
        if !is_root() {
            return;
        }
        let root = tree();
        let group = FsGroup { gid: 4711, only_on_mismatch: true };
        give(root.path(), group, true).unwrap();
        assert_eq!(look(&root.path().join("sub/file")), (4711, 0o640));
        set_permissions(root.path().join("sub/file"), Permissions::from_mode(0o600)).unwrap();
        give(root.path(), group, true).unwrap();
        assert_eq!(look(&root.path().join("sub/file")), (4711, 0o600));
        // The group may not write yet.
        set_permissions(root.path(), Permissions::from_mode(0o2750)).unwrap();
        give(root.path(), group, false).unwrap();
        assert_eq!(look(&root.path().join("sub/file")), (4711, 0o660));
    }

    #[test]
    fn a_tree_deeper_than_any_real_one_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let mut below = open(root.path(), OFlag::O_PATH, Mode::empty()).unwrap();
        for _ in 0..MAX_DEPTH {
            nix::sys::stat::mkdirat(&below, "d", Mode::S_IRWXU).unwrap();
            below = openat(&below, "d", OFlag::O_PATH, Mode::empty()).unwrap();
        }
        let gid = nix::unistd::getegid().as_raw();
        let given = give(root.path(), FsGroup { gid, only_on_mismatch: false }, false);
        assert_eq!(given, Err(Errno::ELOOP));
    }
}
