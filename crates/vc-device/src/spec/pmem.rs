//! Persistent memory: a file that the guest sees as memory.

use std::fs::File;
use std::sync::Arc;

use vc_types::{DeviceId, HostPath};

use super::Access;

/// Where the signature of a PFN information block stands in an image: the block follows 4 KiB of
/// padding (`struct nd_pfn_sb` in the kernel's `drivers/nvdimm/pfn.h`).
pub const PFN_SIGNATURE_OFFSET: usize = 4096;

const PFN_SIGNATURE: &[u8] = b"NVDIMM_PFN_INFO";

/// Sizes of persistent memory are multiples of this: the kernel maps memory in subsections of 2 MiB
/// (`SUBSECTION_SIZE` in `include/linux/mmzone.h`).
const ALIGNMENT: u64 = 2 << 20;

/// Whether an image, of which `start` is the first part, says that it is laid out for DAX.
///
/// Without the signature, a file behind a loop device is a disk like any other. 4111 bytes are enough.
pub fn has_pfn_signature(start: &[u8]) -> bool {
    start.get(PFN_SIGNATURE_OFFSET..).is_some_and(|block| block.starts_with(PFN_SIGNATURE))
}

/// Why a file cannot be persistent memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPmem {
    /// No size, or one that memory cannot have.
    #[error("{name} has {size} bytes; persistent memory needs a multiple of 2 MiB")]
    Size {
        /// The file.
        name: HostPath,
        /// Its size in bytes.
        size: u64,
    },
}

/// How the guest sees persistent memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PmemFrontend {
    /// A DIMM in a memory slot, described by ACPI. Needs a machine that was started with free slots.
    Nvdimm,
    /// A virtio device in a port. QEMU refuses to unplug it.
    VirtioPmem,
}

/// Persistent memory that a machine is to get.
#[derive(Clone, Debug)]
pub struct PmemSpec {
    id: DeviceId,
    image: Arc<File>,
    name: HostPath,
    size: u64,
    access: Access,
    frontend: PmemFrontend,
}

impl PmemSpec {
    /// The file `image` of `size` bytes as memory; `name` is what it was called when it was opened.
    ///
    /// # Errors
    /// [`InvalidPmem::Size`] when `size` is 0 or no multiple of 2 MiB.
    pub fn new(
        id: DeviceId,
        (image, name): (Arc<File>, HostPath),
        size: u64,
        access: Access,
        frontend: PmemFrontend,
    ) -> Result<Self, InvalidPmem> {
        if size == 0 || !size.is_multiple_of(ALIGNMENT) {
            return Err(InvalidPmem::Size { name, size });
        }
        Ok(Self { id, image, name, size, access, frontend })
    }

    /// Names the device within its machine.
    pub fn id(&self) -> &DeviceId {
        &self.id
    }

    /// The file, open for what [`PmemSpec::access`] says.
    pub fn image(&self) -> &Arc<File> {
        &self.image
    }

    /// What the file was called when it was opened, for messages only.
    pub fn name(&self) -> &HostPath {
        &self.name
    }

    /// The size in bytes, a multiple of 2 MiB.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether the guest may write.
    pub fn access(&self) -> Access {
        self.access
    }

    /// How the guest sees it.
    pub fn frontend(&self) -> PmemFrontend {
        self.frontend
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pfn_signature_stands_at_4096() {
        let mut image = vec![0; 8192];
        assert!(!has_pfn_signature(&image));
        image[4096..4096 + 15].copy_from_slice(b"NVDIMM_PFN_INFO");
        assert!(has_pfn_signature(&image));
        assert!(has_pfn_signature(&image[..4111]), "just enough");
        assert!(!has_pfn_signature(&image[..4110]), "cut off");
        assert!(!has_pfn_signature(&image[1..]), "elsewhere");
        assert!(!has_pfn_signature(&[]), "an empty file");
    }

    #[test]
    fn sizes_are_what_memory_can_have() {
        let file = || (Arc::new(File::open("/dev/null").unwrap()), HostPath::new("/image").unwrap());
        let make = |size| {
            PmemSpec::new("pmem0".parse().unwrap(), file(), size, Access::ReadOnly, PmemFrontend::Nvdimm)
        };
        assert_eq!(make(4 << 20).unwrap().size(), 4 << 20);
        for bad in [0, 1, (2 << 20) - 1, (2 << 20) + 512, u64::MAX] {
            assert!(matches!(make(bad), Err(InvalidPmem::Size { size, .. }) if size == bad));
        }
    }
}
