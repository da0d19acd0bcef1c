//! Programs for the kernel's virtual machine: bpf(2), as far as device rules need it.

use nix::errno::Errno;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Commands, program and attach types of bpf(2) (`include/uapi/linux/bpf.h`).
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// The members of `union bpf_attr` that BPF_PROG_LOAD reads, up to `log_buf`.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    program: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// Those that BPF_PROG_ATTACH reads.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Has the kernel ask `program` about each access to a device by processes of `cgroup`
/// (BPF_PROG_TYPE_CGROUP_DEVICE). Each element is one instruction in the kernel's encoding.
///
/// # Errors
/// The error of bpf(2): `EINVAL` for a kernel without such programs.
pub(crate) fn attach_device_program(cgroup: &OwnedFd, program: &[u64]) -> Result<(), Errno> {
    let load = Load {
        kind: TYPE_CGROUP_DEVICE,
        instructions: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        program: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    // SAFETY: `load` and what it points to outlive the call, which only reads them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of_val(&load)) };
    let loaded = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just made the descriptor for this caller.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded) };
    let attach = Attach {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: loaded.as_raw_fd().cast_unsigned(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: `attach` outlives the call, which only reads it.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of_val(&attach)) };
    // The cgroup keeps the program.
    Errno::result(result).map(drop)
}
