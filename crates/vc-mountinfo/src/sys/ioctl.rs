//! The ioctls that read: of loop devices, of disks, of mounted filesystems.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;
use crate::DeviceNumber;

const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const BLKGETDISKSEQ: u32 = 0x8008_1280;
const FS_IOC_GETFSUUID: u32 = 0x8011_1500;
const NS_GET_MNTNS_ID: u32 = 0x8008_b705;

/// `struct loop_info64`; what this crate does not read has no name.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawLoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    _number_and_encryption: [u32; 3],
    flags: u32,
    _names_and_keys: [u8; 160],
    _init: [u64; 2],
}
const _: () = assert!(size_of::<RawLoopInfo>() == 232);

/// What the loop driver knows of the file behind a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoopStatus {
    /// The device number of the filesystem the file is on.
    pub(crate) device: DeviceNumber,
    pub(crate) inode: u64,
    /// The number of the block device the file is, if it is one.
    pub(crate) block_device: DeviceNumber,
    pub(crate) offset: u64,
    pub(crate) size_limit: u64,
    pub(crate) flags: u32,
}

/// `LOOP_GET_STATUS64`; fails with `ENXIO` when no file is attached.
pub(crate) fn loop_status(device: BorrowedFd<'_>) -> io::Result<LoopStatus> {
    let mut info = std::mem::MaybeUninit::<RawLoopInfo>::zeroed();
    // SAFETY: the kernel writes one `struct loop_info64` to `info`.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, info.as_mut_ptr()) })?;
    // SAFETY: zeroed above and made of integers.
    let info = unsafe { info.assume_init() };
    Ok(LoopStatus {
        device: DeviceNumber::decode(info.device),
        inode: info.inode,
        block_device: DeviceNumber::decode(info.rdevice),
        offset: info.offset,
        size_limit: info.size_limit,
        flags: info.flags,
    })
}

/// `BLKGETDISKSEQ`, Linux 5.15: a number that no two attachments of any disk share.
pub(crate) fn disk_sequence(disk: BorrowedFd<'_>) -> io::Result<u64> {
    let mut sequence = 0_u64;
    // SAFETY: the kernel writes one u64 to `sequence`.
    check(unsafe { libc::ioctl(disk.as_raw_fd(), BLKGETDISKSEQ as libc::Ioctl, &raw mut sequence) })?;
    Ok(sequence)
}

/// `FS_IOC_GETFSUUID`, Linux 6.9: the UUID of the filesystem that the open file is on.
pub(crate) fn filesystem_uuid(file: BorrowedFd<'_>) -> io::Result<[u8; 16]> {
    let mut answer = [0_u8; 17];
    // SAFETY: the kernel writes one `struct fsuuid2` (a length byte and 16 bytes) to `answer`.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETFSUUID as libc::Ioctl, answer.as_mut_ptr()) })?;
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&answer[1..]);
    Ok(uuid)
}

/// `NS_GET_MNTNS_ID`, Linux 6.11: the id of a mount namespace, given a handle on it.
pub(crate) fn mount_namespace_id(namespace: BorrowedFd<'_>) -> io::Result<u64> {
    let mut id = 0_u64;
    // SAFETY: the kernel writes one u64 to `id`.
    check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_MNTNS_ID as libc::Ioctl, &raw mut id) })?;
    Ok(id)
}
