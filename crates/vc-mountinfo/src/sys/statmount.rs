//! `statmount(2)`, Linux 6.8: one mount by its unique id.

use std::io;

use super::check;

const SYS_STATMOUNT: libc::c_long = 457;

/// What may be asked of `statmount` (`STATMOUNT_*`).
pub(crate) mod ask {
    /// Device number and flags of the superblock.
    pub(crate) const SB_BASIC: u64 = 0x1;
    /// Ids and attributes of the mount.
    pub(crate) const MNT_BASIC: u64 = 0x2;
    /// The path within the filesystem that is mounted.
    pub(crate) const MNT_ROOT: u64 = 0x8;
    /// Where it is mounted, from the caller's root.
    pub(crate) const MNT_POINT: u64 = 0x10;
    /// The filesystem's type.
    pub(crate) const FS_TYPE: u64 = 0x20;
    /// The filesystem's options, escaped as in mountinfo.
    pub(crate) const MNT_OPTS: u64 = 0x80;
    /// What follows the dot in `fuse.sshfs`.
    pub(crate) const FS_SUBTYPE: u64 = 0x100;
    /// The source; not before Linux 6.13.
    pub(crate) const SB_SOURCE: u64 = 0x200;
    /// Which of all these the kernel knows.
    pub(crate) const SUPPORTED_MASK: u64 = 0x1000;
}

/// `struct mnt_id_req`; without the namespace it is its first version, which every kernel takes.
#[repr(C)]
pub(super) struct Request {
    size: u32,
    spare: u32,
    mount_id: u64,
    param: u64,
    namespace_id: u64,
}

impl Request {
    pub(super) fn new(mount_id: u64, param: u64, namespace_id: Option<u64>) -> Self {
        let size = if namespace_id.is_some() { 32 } else { 24 };
        Self { size, spare: 0, mount_id, param, namespace_id: namespace_id.unwrap_or(0) }
    }
}

/// Takes answers, and grows as they need.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// Asks for the mount with this unique id, of the caller's namespace or another.
    pub(crate) fn ask(&mut self, unique_id: u64, asked: u64, namespace_id: Option<u64>) -> io::Result<()> {
        const LEAST: usize = 1024;
        const MOST: usize = 1 << 24;
        let request = Request::new(unique_id, asked, namespace_id);
        if self.0.len() < LEAST {
            self.0.resize(LEAST, 0);
        }
        loop {
            let (start, size) = (self.0.as_mut_ptr(), self.0.len());
            // SAFETY: `request` is a `struct mnt_id_req` of the size it states, and the kernel writes at
            // most `size` bytes to `start`.
            let result = unsafe { libc::syscall(SYS_STATMOUNT, &raw const request, start, size, 0_u32) };
            match check(result) {
                Ok(_) => return self.answer().check(),
                Err(e) if e.raw_os_error() == Some(libc::EOVERFLOW) && size < MOST => {
                    self.0.resize(size * 4, 0);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// The last answer; only after an [`ask`](Self::ask) that succeeded.
    pub(crate) fn answer(&self) -> Answer<'_> {
        Answer { bytes: &self.0 }
    }
}

/// `struct statmount` with its strings, read at the offsets of `linux/mount.h`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'b> {
    bytes: &'b [u8],
}

impl<'b> Answer<'b> {
    const STRINGS: usize = 512;

    fn check(&self) -> io::Result<()> {
        let size = self.u32_at(0) as usize;
        if (Self::STRINGS..=self.bytes.len()).contains(&size) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "statmount answered with an impossible size"))
    }

    fn mask(&self) -> u64 {
        self.u64_at(8)
    }
    /// Major and minor number of the superblock's device.
    pub(crate) fn device(&self) -> [u32; 2] {
        [self.u32_at(16), self.u32_at(20)]
    }
    pub(crate) fn superblock_flags(&self) -> u32 {
        self.u32_at(32)
    }
    pub(crate) fn unique_id(&self) -> u64 {
        self.u64_at(40)
    }
    /// The ids mountinfo shows, of the mount and its parent.
    pub(crate) fn ids(&self) -> [u32; 2] {
        [self.u32_at(56), self.u32_at(60)]
    }
    pub(crate) fn attributes(&self) -> u64 {
        self.u64_at(64)
    }
    /// Whether the source is missing because the kernel cannot tell it, not because it is empty.
    pub(crate) fn lacks_source(&self) -> bool {
        let supported = if self.mask() & ask::SUPPORTED_MASK != 0 { self.u64_at(144) } else { 0 };
        (self.mask() | supported) & ask::SB_SOURCE == 0
    }
    /// The string of one `ask` bit, if the kernel gave it.
    pub(crate) fn string(&self, bit: u64) -> Option<&'b [u8]> {
        let field = match bit {
            ask::MNT_OPTS => 4,
            ask::FS_TYPE => 36,
            ask::MNT_ROOT => 104,
            ask::MNT_POINT => 108,
            ask::FS_SUBTYPE => 120,
            ask::SB_SOURCE => 124,
            _ => return None,
        };
        if self.mask() & bit == 0 {
            return None;
        }
        let strings = self.bytes.get(Self::STRINGS + self.u32_at(field) as usize..)?;
        super::find_byte(0, strings).map(|end| &strings[..end])
    }

    fn u32_at(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(array(self.bytes, offset))
    }
    fn u64_at(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(array(self.bytes, offset))
    }
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes[offset..offset + N].try_into().expect("a slice of N bytes makes an array of N bytes")
}
