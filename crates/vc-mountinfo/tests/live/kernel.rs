//! The system calls the tests make the world with, that nix does not wrap.
#![expect(unsafe_code, reason = "raw system calls; every block says why it is sound")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::world::skip;

fn c(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().as_os_str().as_bytes()).unwrap()
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: i64) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the call that gave `result` made a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) })
}

/// `open_tree(OPEN_TREE_CLONE)`: a copy of the mount at `path`, not mounted anywhere.
pub(crate) fn clone_mount(path: &Path) -> io::Result<OwnedFd> {
    let (path, flags) = (c(path), 1 | libc::O_CLOEXEC);
    // SAFETY: `path` is a C string that lives through the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// Mounts the copy at `path`, beneath what is mounted there (`MOVE_MOUNT_BENEATH`, Linux 6.5).
pub(crate) fn mount_beneath(mount: impl AsFd, path: &Path) {
    match move_mount(mount, path, 0x200) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => skip("needs mounts beneath others, of Linux 6.5"),
        Err(e) => panic!("move_mount: {e}"),
    }
}

fn move_mount(mount: impl AsFd, path: &Path, flags: i32) -> io::Result<()> {
    const FROM_FD: i32 = 0x4;
    let (empty, path) = (c(""), c(path));
    // SAFETY: both names are C strings that live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            empty.as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            FROM_FD | flags,
        )
    };
    check(result).map(drop)
}

/// Mounts a filesystem with options of any length, by `fsopen`, `fsconfig` for each, and `fsmount`.
pub(crate) fn mount_by_fsconfig(fs_type: &str, options: &[(&str, &Path)], target: &Path) -> io::Result<()> {
    const SET_STRING: u32 = 1;
    const CREATE: u32 = 6;
    let name = c(fs_type);
    // SAFETY: `name` is a C string that lives through the call.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), 1) })?;
    for (key, value) in options {
        let (key, value) = (c(key), c(value));
        // SAFETY: key and value are C strings that live through the call.
        check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                SET_STRING,
                key.as_ptr(),
                value.as_ptr(),
                0,
            )
        })?;
    }
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes neither key nor value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CREATE, none, none, 0) })?;
    // SAFETY: takes no pointers.
    let mount = owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, 0) })?;
    move_mount(mount, target, 0)
}

/// A free loop device's number (`LOOP_CTL_GET_FREE`); another process may take it at any time.
pub(crate) fn free_loop(control: &File) -> io::Result<u32> {
    // SAFETY: takes no pointer.
    let number = check(i64::from(unsafe { libc::ioctl(control.as_raw_fd(), 0x4C82) }))?;
    Ok(u32::try_from(number).unwrap())
}

/// `struct loop_config` of linux/loop.h, with what the tests set.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    identity: [u64; 3],
    offset: u64,
    size_limit: u64,
    number_and_encryption: [u32; 3],
    flags: u32,
    names_and_keys: [u8; 160],
    init: [u64; 2],
    reserved: [u64; 8],
}
const _: () = assert!(size_of::<LoopConfig>() == 304);

/// Attaches `file` (`LOOP_CONFIGURE`); the device detaches itself when its last user is gone.
pub(crate) fn attach_loop(
    device: &File,
    file: &File,
    offset: u64,
    size_limit: u64,
    flags: u32,
) -> io::Result<()> {
    const AUTOCLEAR: u32 = 4;
    let config = LoopConfig {
        fd: u32::try_from(file.as_raw_fd()).unwrap(),
        block_size: 0,
        identity: [0; 3],
        offset,
        size_limit,
        number_and_encryption: [0; 3],
        flags: AUTOCLEAR | flags,
        names_and_keys: [0; 160],
        init: [0; 2],
        reserved: [0; 8],
    };
    // SAFETY: `config` is a whole `struct loop_config` that lives through the call.
    check(i64::from(unsafe { libc::ioctl(device.as_raw_fd(), 0x4C0A, &raw const config) })).map(drop)
}

/// `LO_FLAGS_READ_ONLY`.
pub(crate) const LOOP_READ_ONLY: u32 = 1;
/// `LO_FLAGS_PARTSCAN`, without which a loop device can have no partitions.
pub(crate) const LOOP_PARTITIONS: u32 = 8;

/// `BLKPG_ADD_PARTITION`: makes a partition, start and length in bytes, without a partition table on the disk.
pub(crate) fn add_partition(disk: &File, number: i32, start: u64, length: u64) -> io::Result<()> {
    /// `struct blkpg_partition`.
    #[repr(C)]
    struct Partition {
        start: u64,
        length: u64,
        number: i32,
        names: [u8; 128],
    }
    /// `struct blkpg_ioctl_arg`.
    #[repr(C)]
    struct Argument {
        operation: i32,
        flags: i32,
        length: i32,
        data: *const Partition,
    }
    let data = Partition { start, length, number, names: [0; 128] };
    let length = i32::try_from(size_of::<Partition>()).unwrap();
    let argument = Argument { operation: 1, flags: 0, length, data: &raw const data };
    // SAFETY: `argument` and the partition it points to are of the kernel's layout and live through the call.
    check(i64::from(unsafe { libc::ioctl(disk.as_raw_fd(), 0x1269, &raw const argument) })).map(drop)
}

/// `LOOP_CHANGE_FD`: puts another file of the same size behind a read-only loop device.
pub(crate) fn change_loop(device: &File, file: &File) -> io::Result<()> {
    // SAFETY: takes a descriptor, no pointer.
    check(i64::from(unsafe { libc::ioctl(device.as_raw_fd(), 0x4C06, file.as_raw_fd()) })).map(drop)
}

/// `LOOP_SET_DIRECT_IO`.
pub(crate) fn set_direct_io(device: &File) -> io::Result<()> {
    // SAFETY: takes a number, no pointer.
    check(i64::from(unsafe { libc::ioctl(device.as_raw_fd(), 0x4C08, 1) })).map(drop)
}

/// `LOOP_CLR_FD`.
pub(crate) fn detach_loop(device: &File) -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(i64::from(unsafe { libc::ioctl(device.as_raw_fd(), 0x4C01) })).map(drop)
}

/// Makes the calling thread, and no other, an unprivileged user.
pub(crate) fn become_nobody() -> io::Result<()> {
    const NOBODY: libc::uid_t = 65534;
    for call in [libc::SYS_setresgid, libc::SYS_setresuid] {
        // SAFETY: takes no pointers. The raw calls change this thread alone.
        check(unsafe { libc::syscall(call, NOBODY, NOBODY, NOBODY) })?;
    }
    Ok(())
}

/// Has each of the system `calls` fail with its error number in the calling thread, as a seccomp profile does.
pub(crate) fn refuse(calls: &[(libc::c_long, i32)]) -> io::Result<()> {
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    // struct sock_filter: load the number of the call, then for each: if equal, answer with its error.
    let filter = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = vec![filter(0x20, 0, 0, 0)];
    for (call, errno) in calls {
        program.push(filter(0x15, 0, 1, u32::try_from(*call).unwrap()));
        program.push(filter(0x06, 0, 0, ERRNO | u32::try_from(*errno).unwrap()));
    }
    program.push(filter(0x06, 0, 0, ALLOW));
    let program =
        libc::sock_fprog { len: u16::try_from(program.len()).unwrap(), filter: program.as_mut_ptr() };
    // SAFETY: takes no pointers.
    check(i64::from(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }))?;
    // SAFETY: `program` and the filter it points to live through the call, which copies them.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    check(i64::from(result)).map(drop)
}

/// Makes a directory in an open one and opens it: the way to paths longer than `PATH_MAX`.
pub(crate) fn make_dir(parent: &File, name: &str) -> io::Result<File> {
    let below = fd_path(parent).join(name);
    std::fs::create_dir(&below)?;
    File::open(&below)
}

/// A short path to an open file.
pub(crate) fn fd_path(file: &File) -> std::path::PathBuf {
    format!("/proc/thread-self/fd/{}", file.as_raw_fd()).into()
}
