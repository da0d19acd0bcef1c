//! The two system calls that resolve a mount, and nothing around them: what no library can be faster than.
#![expect(unsafe_code, reason = "two raw system calls; every block says why it is sound")]

use std::ffi::CString;
use std::io;

use anyhow::{Result, ensure};

/// Calls `statx` and `statmount` for each path, in one buffer; whether each answered.
pub fn resolve(paths: &[CString]) -> Result<bool> {
    let mut answer = [0_u8; 1024];
    paths.iter().try_for_each(|path| statmount(mount_id(path)?, &mut answer))?;
    Ok(true)
}

/// Calls `statx` alone for each path.
pub fn identify(paths: &[CString]) -> Result<bool> {
    paths.iter().try_for_each(|path| mount_id(path).map(drop))?;
    Ok(true)
}

fn mount_id(path: &CString) -> Result<u64> {
    const FLAGS: i32 = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | 0x4000;
    const MNT_ID_UNIQUE: u32 = 0x4000;
    let mut stat = [0_u64; 32];
    let (path, stat_at) = (path.as_ptr(), stat.as_mut_ptr());
    // SAFETY: `path` is a C string and `stat` has the 256 bytes of a `struct statx`; both live through the call.
    let result =
        unsafe { libc::syscall(libc::SYS_statx, libc::AT_FDCWD, path, FLAGS, MNT_ID_UNIQUE, stat_at) };
    ensure!(result == 0, "statx: {}", io::Error::last_os_error());
    Ok(stat[18])
}

fn statmount(id: u64, answer: &mut [u8]) -> Result<()> {
    /// Numbers and flags, type, subtype and source: what `Lookup` asks for.
    const ASKED: u64 = 0x1 | 0x2 | 0x20 | 0x100 | 0x200 | 0x1000;
    // `struct mnt_id_req` of its first version: its size, the mount, what is asked.
    let request = [24, id, ASKED];
    // SAFETY: `request` has the 24 bytes it states, and the kernel writes at most the buffer's length.
    let result = unsafe { libc::syscall(457, request.as_ptr(), answer.as_mut_ptr(), answer.len(), 0_u32) };
    ensure!(result == 0, "statmount: {}", io::Error::last_os_error());
    Ok(())
}
