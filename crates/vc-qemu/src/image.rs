//! The guest's kernel and initial RAM disk: open, checked, and how much memory they need to start.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use nix::fcntl::OFlag;
use vc_hypervisor::{LaunchError, MachineSpec};
use vc_types::{HostPath, MiB};

use crate::config::User;

/// What a kernel needs besides its own image and the RAM disk, packed and unpacked. With 4 MiB less,
/// Debian's 6.1 kernel panics for want of memory.
const SLACK: u64 = 8 << 20;

/// The guest's files, for QEMU to inherit.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) kernel: OwnedFd,
    pub(crate) initrd: OwnedFd,
}

/// Opens the files of `spec`, and refuses a machine that is too small for them.
pub(crate) fn open(spec: &MachineSpec, user: Option<User>) -> Result<Image, LaunchError> {
    let kernel = readable("kernel", &spec.kernel, user)?;
    let initrd = readable("initrd", &spec.initrd, user)?;
    let unreadable = |source| LaunchError::Image { what: "kernel", path: spec.kernel.clone(), source };
    let end = end_in_memory(&kernel).map_err(unreadable)?;
    let initrd_size = initrd.metadata().map_or(0, |metadata| metadata.len());
    if let Some(end) = end {
        let least = least_memory(end, initrd_size).ok_or_else(no_kernel).map_err(unreadable)?;
        if spec.memory < least {
            return Err(LaunchError::TooLittleMemory { wanted: spec.memory, least });
        }
    }
    Ok(Image { kernel: kernel.into(), initrd: initrd.into() })
}

/// The RAM disk is in memory twice while the kernel unpacks it. `None` when no machine has that much.
fn least_memory(kernel_end: u64, initrd: u64) -> Option<MiB> {
    let bytes = kernel_end.saturating_add(initrd.saturating_mul(2)).saturating_add(SLACK);
    u32::try_from(bytes.div_ceil(1 << 20)).ok().and_then(MiB::new)
}

fn no_kernel() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no kernel for x86-64")
}

fn readable(what: &'static str, path: &HostPath, user: Option<User>) -> Result<File, LaunchError> {
    let image = |source| LaunchError::Image { what, path: path.clone(), source };
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(image)?;
    let metadata = file.metadata().map_err(image)?;
    if !metadata.is_file() {
        return Err(image(io::Error::other("not a regular file")));
    }
    match user {
        Some(user) if !may_read(&metadata, user) => {
            let why = format!("user {} may not read it", user.uid);
            Err(image(io::Error::new(io::ErrorKind::PermissionDenied, why)))
        }
        _ => Ok(file),
    }
}

/// Whether the permission bits let `user` read the file: QEMU opens what it inherits once more.
fn may_read(file: &Metadata, user: User) -> bool {
    let bit = match () {
        () if user.uid == file.uid() => 0o400,
        () if user.gid == file.gid() => 0o040,
        () => 0o004,
    };
    user.uid == 0 || file.mode() & bit != 0
}

/// The machine of an ELF file (elf(5), `e_machine`), by its number in `linux/elf-em.h`.
const X86_64: u16 = 62;

/// Where the kernel ends in the guest's memory, by the program headers of its ELF file; `None` when it is
/// no 64-bit ELF file. One for another machine is refused. Source: elf(5).
fn end_in_memory(kernel: &File) -> io::Result<Option<u64>> {
    let mut header = [0; 64];
    if kernel.read_at(&mut header, 0)? < header.len() || !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    if header[18..20] != X86_64.to_le_bytes() {
        return Err(no_kernel());
    }
    let offset = u64::from_le_bytes(header[32..40].try_into().expect("eight bytes"));
    let size = u16::from_le_bytes(header[54..56].try_into().expect("two bytes"));
    let count = u16::from_le_bytes(header[56..58].try_into().expect("two bytes"));
    let mut end = None;
    for index in 0..u64::from(count) {
        let mut segment = [0; 56];
        let at = offset.saturating_add(index * u64::from(size));
        if kernel.read_at(&mut segment, at)? < segment.len() {
            return Ok(None);
        }
        let word = |at: usize| u64::from_le_bytes(segment[at..at + 8].try_into().expect("eight bytes"));
        // PT_LOAD: physical address and size in memory.
        if segment.starts_with(&1u32.to_le_bytes()) {
            end = end.max(Some(word(24).saturating_add(word(40))));
        }
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// An ELF file of one segment that is loaded at 16 MiB.
    fn elf(memory_size: u64) -> tempfile::NamedTempFile {
        let mut bytes = [0u8; 120];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = 62;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64] = 1;
        bytes[64 + 24..64 + 32].copy_from_slice(&(16u64 << 20).to_le_bytes());
        bytes[64 + 40..64 + 48].copy_from_slice(&memory_size.to_le_bytes());
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    fn spec(kernel: &tempfile::NamedTempFile, memory: u32) -> MachineSpec {
        let path = HostPath::new(kernel.path()).unwrap();
        let mut spec = MachineSpec::new("m".parse().unwrap(), path.clone(), path.clone(), path);
        spec.memory = MiB::new(memory).unwrap();
        spec
    }

    #[test]
    fn too_little_memory_is_refused_with_what_is_needed() {
        // Debian's cloud kernel 6.1 ends at 62 MiB. Its panic at 64 MiB is what this is against.
        let kernel = elf(46 << 20);
        let error = open(&spec(&kernel, 64), None).unwrap_err();
        let text = error.to_string();
        assert_eq!(text, "64M is too little memory for this guest image, which needs 71M to start");
        open(&spec(&kernel, 71), None).unwrap();
    }

    #[test]
    fn the_ram_disk_counts_twice() {
        // Measured with a RAM disk of 12.8 MiB: 88 MiB panic, 96 MiB boot.
        let least = least_memory(62 << 20, 13_446_776).unwrap();
        assert!((88..=96).contains(&least.get()), "{least}");
    }

    #[test]
    fn what_no_machine_of_this_kind_can_start_is_refused() {
        // Loaded where no machine has memory, as a damaged file may say; and one for ARM.
        let too_far = elf(1 << 60);
        let other = elf(46 << 20);
        other.as_file().write_at(&183_u16.to_le_bytes(), 18).unwrap();
        for kernel in [too_far, other] {
            match open(&spec(&kernel, 128), None) {
                Err(LaunchError::Image { what: "kernel", source, .. }) => {
                    assert_eq!(source.kind(), io::ErrorKind::InvalidData, "{source}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_elf_file_is_left_to_qemu() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"MZ bzImage").unwrap();
        open(&spec(&file, 1), None).unwrap();
    }

    #[test]
    fn a_user_must_be_able_to_read_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let user = User { uid: 4711, gid: 4712 };
        let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(file.path(), mode(0o600)).unwrap();
        let error = open(&spec(&file, 1), Some(user)).unwrap_err();
        assert!(matches!(error, LaunchError::Image { .. }), "{error:?}");
        std::fs::set_permissions(file.path(), mode(0o604)).unwrap();
        open(&spec(&file, 1), Some(user)).unwrap();
    }
}
