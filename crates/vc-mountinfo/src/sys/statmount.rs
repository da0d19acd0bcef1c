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
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// How much of it is the last answer.
    filled: usize,
}

impl Buffer {
    /// Asks for the mount with this unique id, of the caller's namespace or another.
    pub(crate) fn ask(&mut self, unique_id: u64, asked: u64, namespace_id: Option<u64>) -> io::Result<()> {
        const LEAST: usize = 1024;
        const MOST: usize = 1 << 24;
        let request = Request::new(unique_id, asked, namespace_id);
        if self.bytes.len() < LEAST {
            self.bytes.resize(LEAST, 0);
        }
        loop {
            let (start, size) = (self.bytes.as_mut_ptr(), self.bytes.len());
            // SAFETY: `request` is a `struct mnt_id_req` of the size it states, and the kernel writes at
            // most `size` bytes to `start`.
            let result = unsafe { libc::syscall(SYS_STATMOUNT, &raw const request, start, size, 0_u32) };
            match check(result) {
                Ok(_) => {
                    self.filled = Answer::parse(&self.bytes)?.bytes.len();
                    return Ok(());
                }
                Err(e) if e.raw_os_error() == Some(libc::EOVERFLOW) && size < MOST => {
                    self.bytes.resize(size * 4, 0);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// The last answer; only after an [`ask`](Self::ask) that succeeded.
    pub(crate) fn answer(&self) -> Answer<'_> {
        Answer { bytes: &self.bytes[..self.filled] }
    }
}

/// `struct statmount` with its strings, read at the offsets of `linux/mount.h`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'b> {
    /// No less than the fixed part.
    bytes: &'b [u8],
}

impl<'b> Answer<'b> {
    /// The length of the fixed part; the strings follow.
    const STRINGS: usize = 512;

    /// Takes what the kernel wrote from the start of `buffer`, and not what is left behind it from before.
    pub(crate) fn parse(buffer: &'b [u8]) -> io::Result<Self> {
        let impossible =
            || io::Error::new(io::ErrorKind::InvalidData, "statmount answered with an impossible size");
        let size = buffer.first_chunk().map(|size| u32::from_ne_bytes(*size) as usize);
        let bytes = size.filter(|size| *size >= Self::STRINGS).and_then(|size| buffer.get(..size));
        bytes.map(|bytes| Self { bytes }).ok_or_else(impossible)
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
        let string = self.bytes[Self::STRINGS..].get(self.u32_at(field) as usize..)?;
        super::find_byte(0, string).map(|end| &string[..end])
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of this size and mask, followed by the strings.
    fn answer(size: u32, mask: u64, strings: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; Answer::STRINGS];
        bytes[..4].copy_from_slice(&size.to_ne_bytes());
        bytes[8..16].copy_from_slice(&mask.to_ne_bytes());
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn an_impossible_size_is_refused() {
        for (size, length) in [(511, 512), (513, 512), (u32::MAX, 600), (0, 600)] {
            let mut bytes = answer(size, 0, b"");
            bytes.resize(length, 0);
            assert!(Answer::parse(&bytes).is_err(), "{size} in {length}");
        }
        assert!(Answer::parse(b"").is_err());
        assert!(Answer::parse(&answer(512, 0, b"left from before")).is_ok());
    }

    #[test]
    fn a_kernel_without_the_source_is_told_from_an_empty_source() {
        let lacks = |mask, supported: u64| {
            let mut bytes = answer(512, mask, b"");
            bytes[144..152].copy_from_slice(&supported.to_ne_bytes());
            Answer::parse(&bytes).unwrap().lacks_source()
        };
        // Before Linux 6.13, which knows of neither.
        assert!(lacks(ask::SB_BASIC, 0));
        assert!(!lacks(ask::SB_BASIC | ask::SB_SOURCE, 0));
        // Newer ones leave the bit out when the source is empty, and say that they know it.
        assert!(!lacks(ask::SB_BASIC | ask::SUPPORTED_MASK, 0x7fff));
        assert!(lacks(ask::SB_BASIC | ask::SUPPORTED_MASK, 0x1fff & !ask::SB_SOURCE));
    }

    #[test]
    fn a_string_is_read_up_to_its_end_and_not_from_elsewhere() {
        let mut bytes = answer(512 + 8, ask::FS_TYPE | ask::SB_SOURCE, b"erofs\0ab\0");
        bytes[36..40].copy_from_slice(&0_u32.to_ne_bytes());
        bytes[124..128].copy_from_slice(&6_u32.to_ne_bytes());
        let read = |bytes: &[u8]| {
            let answer = Answer::parse(bytes).unwrap();
            [ask::FS_TYPE, ask::SB_SOURCE, ask::MNT_POINT].map(|bit| answer.string(bit).map(<[u8]>::to_vec))
        };
        // The last byte belongs to the answer before.
        assert_eq!(read(&bytes), [Some(b"erofs".to_vec()), None, None]);
        bytes[..4].copy_from_slice(&(512 + 9_u32).to_ne_bytes());
        assert_eq!(read(&bytes), [Some(b"erofs".to_vec()), Some(b"ab".to_vec()), None]);
        bytes[124..128].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(read(&bytes)[1], None);
    }
}
