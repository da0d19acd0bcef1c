//! The kernel as QEMU starts it fastest: the uncompressed ELF file, entered by PVH.
//!
//! A bzImage carries that file as its payload (Linux, `Documentation/arch/x86/boot.rst`, `payload_offset`). Starting the
//! payload instead of the bzImage saves the guest from decompressing itself.

use elf::ElfBytes;
use elf::abi::PT_NOTE;
use elf::endian::LittleEndian;
use elf::note::Note;

use crate::DecompressError;
use crate::decompress::decompress;

/// `XEN_ELFNOTE_PHYS32_ENTRY`, from Linux' `include/xen/interface/elfnote.h`: where PVH enters the kernel.
const PHYS32_ENTRY: u64 = 18;

/// The oldest boot protocol whose header tells where the payload is.
const PROTOCOL_WITH_PAYLOAD: u16 = 0x0208;

/// A file is no kernel that QEMU can enter by PVH.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmlinuxError {
    /// It is something else.
    #[error("it is neither an ELF file (vmlinux) nor a bzImage")]
    NoKernel,
    /// It looks like a vmlinux, and is none.
    #[error("it is no ELF file that can be read")]
    Elf(#[source] elf::ParseError),
    /// It has no segments to load.
    #[error("it has no segments")]
    NoSegments,
    /// The bzImage is too old to tell where its payload is.
    #[error("its boot protocol {0:#x} is too old to tell the payload")]
    OldProtocol(u16),
    /// The bzImage is not whole.
    #[error("the bzImage is cut short: it ends before its payload does")]
    CutShort,
    /// The payload of the bzImage cannot be decompressed.
    #[error("the payload of the bzImage cannot be had")]
    Payload(#[from] DecompressError),
    /// The payload is not what the bzImage says.
    #[error("the payload has {found} bytes instead of {expected}")]
    Size {
        /// What it has.
        found: usize,
        /// What the bzImage says.
        expected: usize,
    },
    /// The kernel was built without the entry that QEMU takes.
    #[error("the kernel has no PVH entry; it must be built with CONFIG_PVH=y")]
    NoPvhEntry,
    /// The kernel does not tell its release.
    #[error("the kernel has no `Linux version` banner")]
    NoRelease,
}

/// The uncompressed kernel in `kernel`, which is either that already or a bzImage.
pub(crate) fn extract(kernel: Vec<u8>) -> Result<Vec<u8>, VmlinuxError> {
    let vmlinux = if kernel.starts_with(b"\x7fELF") { kernel } else { from_bzimage(&kernel)? };
    if has_pvh_entry(&vmlinux)? { Ok(vmlinux) } else { Err(VmlinuxError::NoPvhEntry) }
}

/// The release that the kernel calls itself, such as `6.1.0-56-cloud-amd64`.
pub(crate) fn release(vmlinux: &[u8]) -> Result<String, VmlinuxError> {
    const BANNER: &[u8] = b"Linux version ";
    // The banner stands twice in a kernel: once as a format for the release (`%s`), once filled in.
    let releases = vmlinux.windows(BANNER.len()).enumerate().filter(|(_, window)| *window == BANNER);
    for (at, _) in releases {
        let word = vmlinux[at + BANNER.len()..].split(|byte| *byte == b' ').next().unwrap_or_default();
        if word.first().is_some_and(u8::is_ascii_digit) && word.len() < 64 {
            return String::from_utf8(word.to_vec()).map_err(|_| VmlinuxError::NoRelease);
        }
    }
    Err(VmlinuxError::NoRelease)
}

fn from_bzimage(image: &[u8]) -> Result<Vec<u8>, VmlinuxError> {
    if image.get(0x202..0x206) != Some(b"HdrS") {
        return Err(VmlinuxError::NoKernel);
    }
    let protocol = image.get(0x206..).and_then(<[u8]>::first_chunk).ok_or(VmlinuxError::CutShort)?;
    let protocol = u16::from_le_bytes(*protocol);
    if protocol < PROTOCOL_WITH_PAYLOAD {
        return Err(VmlinuxError::OldProtocol(protocol));
    }
    let setup_sectors = match image[0x1f1] {
        0 => 4,
        count => usize::from(count),
    };
    let start = (setup_sectors + 1) * 512 + field(image, 0x248)?;
    let length = field(image, 0x24c)?;
    let payload = start.checked_add(length).and_then(|end| image.get(start..end));
    unpack(payload.ok_or(VmlinuxError::CutShort)?)
}

/// The payload ends with its uncompressed size: gzip has that by itself, the kernel's build appends it to all others.
fn unpack(payload: &[u8]) -> Result<Vec<u8>, VmlinuxError> {
    let (data, size) = payload.split_last_chunk().ok_or(VmlinuxError::CutShort)?;
    let expected = number(*size)?;
    let data = if payload.starts_with(&[0x1f, 0x8b]) { payload } else { data };
    let vmlinux = decompress(data)?;
    let found = vmlinux.len();
    if found == expected { Ok(vmlinux) } else { Err(VmlinuxError::Size { found, expected }) }
}

fn field(image: &[u8], at: usize) -> Result<usize, VmlinuxError> {
    number(*image.get(at..).and_then(<[u8]>::first_chunk).ok_or(VmlinuxError::CutShort)?)
}

fn number(bytes: [u8; 4]) -> Result<usize, VmlinuxError> {
    // What this machine cannot count cannot be there either.
    usize::try_from(u32::from_le_bytes(bytes)).map_err(|_| VmlinuxError::CutShort)
}

fn has_pvh_entry(vmlinux: &[u8]) -> Result<bool, VmlinuxError> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(vmlinux).map_err(VmlinuxError::Elf)?;
    let segments = file.segments().ok_or(VmlinuxError::NoSegments)?;
    for segment in segments.iter().filter(|segment| segment.p_type == PT_NOTE) {
        let notes = file.segment_data_as_notes(&segment).map_err(VmlinuxError::Elf)?;
        let is_entry = |note| matches!(note, Note::Unknown(note) if note.n_type == PHYS32_ENTRY && note.name == b"Xen\0");
        if notes.into_iter().any(is_entry) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_the_filled_in_banner() {
        let kernel = b"..Linux version %s (%s)..\0Linux version 6.1.0-9-cloud-amd64 (debian@x)..";
        assert_eq!(release(kernel).unwrap(), "6.1.0-9-cloud-amd64");
        assert!(release(b"Linux version %s").is_err());
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let refused = |bytes: &[u8]| extract(bytes.to_vec()).unwrap_err().to_string();
        assert!(refused(b"text").contains("neither an ELF file"));
        assert!(refused(b"\x7fELF").contains("no ELF file"));
        let mut image = vec![0; 0x206];
        image[0x202..].copy_from_slice(b"HdrS");
        assert!(refused(&image).contains("cut short"));

        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(refused(&image).contains("too old"));
        image[0x206..0x208].copy_from_slice(&PROTOCOL_WITH_PAYLOAD.to_le_bytes());
        image[0x24c] = 0xff;
        assert!(refused(&image).contains("cut short"));
    }

    #[test]
    fn a_program_is_no_kernel() {
        let this_test = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(extract(this_test).unwrap_err().to_string().contains("CONFIG_PVH"));
    }
}
