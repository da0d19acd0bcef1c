//! `statx(2)`: the mount a path is on, by id.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::{check, raw_dir, with_c_path};

/// `STATX_MNT_ID`, Linux 5.8: the id that mountinfo shows; used again after an unmount.
pub(crate) const MNT_ID: u32 = 0x1000;
/// `STATX_MNT_ID_UNIQUE`, Linux 6.8: a 64-bit id that is never used again.
pub(crate) const MNT_ID_UNIQUE: u32 = 0x4000;
const BASIC_STATS: u32 = 0x07ff;
const ATTR_MOUNT_ROOT: u64 = 0x2000;

/// `struct statx`; what this crate does not read has no name.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawStatx {
    mask: u32,
    _block_size: u32,
    attributes: u64,
    _nlink_uid_gid_mode: [u32; 4],
    _inode_size_blocks: [u64; 3],
    attributes_mask: u64,
    _times: [u64; 8],
    _devices: [u32; 4],
    mount_id: u64,
    _rest: [u64; 13],
}
const _: () = assert!(size_of::<RawStatx>() == 256);

/// What `statx` says of a file and the mount it was reached through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileStat {
    mask: u32,
    attributes: u64,
    attributes_mask: u64,
    mount_id: u64,
}

impl FileStat {
    /// The mount id asked for, if this kernel knows that kind (`MNT_ID` or `MNT_ID_UNIQUE`).
    pub(crate) fn mount_id(&self, kind: u32) -> Option<u64> {
        (self.mask & kind != 0).then_some(self.mount_id)
    }

    /// Whether the file is the root of its mount; `None` where the kernel does not tell.
    pub(crate) fn is_mount_root(&self) -> Option<bool> {
        (self.attributes_mask & ATTR_MOUNT_ROOT != 0).then_some(self.attributes & ATTR_MOUNT_ROOT != 0)
    }
}

/// Stats `path`, from `dir` when it is relative. Never triggers an automount, never asks a server.
pub(crate) fn statx(
    dir: Option<BorrowedFd<'_>>,
    path: &Path,
    follow: bool,
    id_kind: u32,
) -> io::Result<FileStat> {
    let no_follow = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    raw(dir, path, no_follow, id_kind)
}

/// Stats the file that `fd` refers to (an `O_PATH` one is enough).
pub(crate) fn statx_fd(fd: BorrowedFd<'_>, id_kind: u32) -> io::Result<FileStat> {
    raw(Some(fd), Path::new(""), libc::AT_EMPTY_PATH, id_kind)
}

fn raw(dir: Option<BorrowedFd<'_>>, path: &Path, flags: i32, id_kind: u32) -> io::Result<FileStat> {
    const AT_STATX_DONT_SYNC: i32 = 0x4000;
    let flags = flags | libc::AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC;
    let mut stat = std::mem::MaybeUninit::<RawStatx>::zeroed();
    with_c_path(path, |path| {
        // SAFETY: `path` is a C string, `stat` is a writable `struct statx`; both live through the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_statx,
                raw_dir(dir),
                path.as_ptr(),
                flags,
                BASIC_STATS | id_kind,
                stat.as_mut_ptr(),
            )
        };
        check(result)
    })?;
    // SAFETY: zeroed above, so initialised whatever the kernel filled in; integers take any bits.
    let stat = unsafe { stat.assume_init() };
    Ok(FileStat {
        mask: stat.mask,
        attributes: stat.attributes,
        attributes_mask: stat.attributes_mask,
        mount_id: stat.mount_id,
    })
}
