//! The superblock of an EROFS image: 128 bytes at offset 1024 (`fs/erofs/erofs_fs.h` in the kernel source).

/// What the superblock says of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Superblock {
    /// The block size in bytes: a power of two from 512 up.
    pub block_size: u32,
    /// How many blocks the image has, appended data such as a hash tree not counted.
    pub blocks: u64,
    /// The UUID; all zero for none.
    pub uuid: [u8; 16],
    /// Features a reader may ignore.
    pub feature_compat: u32,
    /// Features a reader must know; the kernel refuses to mount an image with others.
    pub feature_incompat: u32,
    /// How many other devices or files hold data of this image.
    pub extra_devices: u16,
    /// The CRC-32C of the superblock's block, where `feature_compat` has bit 0.
    pub(super) checksum: u32,
}

/// Why bytes are not an EROFS superblock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// There are less than 128 bytes.
    #[error("an EROFS superblock has 128 bytes, here are {0}")]
    TooShort(usize),
    /// The magic number is another.
    #[error("the magic number is {0:#010x} instead of EROFS's 0xe0f5e1e2")]
    Magic(u32),
    /// The block size is not one the kernel takes.
    #[error("a block size of 2^{0} bytes is out of range: 2^9 to 2^16")]
    BlockSize(u8),
}

impl Superblock {
    /// Where the superblock starts in an image, in bytes.
    pub const OFFSET: usize = 1024;
    /// How long it is, in bytes.
    pub const LENGTH: usize = 128;

    /// The features a reader must know as of Linux 6.18, up to `EROFS_FEATURE_INCOMPAT_METABOX`.
    pub(super) const KNOWN_INCOMPAT: u32 = 0x1ff;
    const COMPAT_CHECKSUM: u32 = 0x1;
    const INCOMPAT_DEVICE_TABLE: u32 = 0x8;
    const INCOMPAT_48_BIT: u32 = 0x80;

    /// Reads the superblock from its 128 bytes.
    ///
    /// # Errors
    /// [`SuperblockError`] when this is not an EROFS superblock.
    pub fn parse(bytes: &[u8]) -> Result<Self, SuperblockError> {
        const MAGIC: u32 = 0xe0f5_e1e2;
        let bytes: &[u8; Self::LENGTH] = bytes.first_chunk().ok_or(SuperblockError::TooShort(bytes.len()))?;
        let magic = u32_at(bytes, 0);
        if magic != MAGIC {
            return Err(SuperblockError::Magic(magic));
        }
        let block_bits = bytes[12];
        if !(9..=16).contains(&block_bits) {
            return Err(SuperblockError::BlockSize(block_bits));
        }
        let feature_incompat = u32_at(bytes, 80);
        // Both fields mean something else, or nothing, in images without the feature.
        let if_has = |feature, value: u16| if feature_incompat & feature == 0 { 0 } else { value };
        let blocks_high = if_has(Self::INCOMPAT_48_BIT, u16_at(bytes, 14));
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[48..64]);
        Ok(Self {
            block_size: 1 << block_bits,
            blocks: u64::from(blocks_high) << 32 | u64::from(u32_at(bytes, 36)),
            uuid,
            feature_compat: u32_at(bytes, 8),
            feature_incompat,
            extra_devices: if_has(Self::INCOMPAT_DEVICE_TABLE, u16_at(bytes, 86)),
            checksum: u32_at(bytes, 4),
        })
    }

    /// How long the image is at least, in bytes.
    pub fn size(&self) -> u64 {
        // 48 bits of blocks of at most 16 bits.
        self.blocks.saturating_mul(u64::from(self.block_size))
    }

    /// How many bytes from [`OFFSET`](Self::OFFSET) on the checksum is of; `None` without a checksum.
    pub(super) fn checksummed_length(&self) -> Option<u32> {
        let rest_of_block = match self.block_size {
            large @ 1025.. => large - 1024,
            small => small,
        };
        (self.feature_compat & Self::COMPAT_CHECKSUM != 0).then_some(rest_of_block)
    }

    /// Whether the checksum is that of `bytes`, which start with the superblock.
    pub(super) fn has_checksum_of(&self, bytes: &[u8]) -> bool {
        // The checksum's own field counts as zero.
        let zeroed = bytes.iter().enumerate().map(|(at, byte)| if (4..8).contains(&at) { 0 } else { *byte });
        crc32c(zeroed) == self.checksum
    }
}

/// CRC-32C without the final inversion, as EROFS stores it.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL * (crc & 1)))
    })
}

fn u16_at(bytes: &[u8; Superblock::LENGTH], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8; Superblock::LENGTH], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(bits: u8, incompat: u32) -> [u8; 128] {
        let mut bytes = [0; 128];
        bytes[..4].copy_from_slice(&[0xe2, 0xe1, 0xf5, 0xe0]);
        bytes[12] = bits;
        bytes[14] = 1;
        bytes[36] = 3;
        bytes[80..84].copy_from_slice(&incompat.to_le_bytes());
        bytes[86] = 2;
        bytes
    }

    #[test]
    fn fields_count_only_with_their_feature() {
        let plain = Superblock::parse(&bytes(12, 0)).unwrap();
        assert_eq!((plain.block_size, plain.blocks, plain.extra_devices), (4096, 3, 0));
        assert_eq!(plain.size(), 3 * 4096);
        let both = Superblock::parse(&bytes(9, 0x88)).unwrap();
        assert_eq!((both.block_size, both.blocks, both.extra_devices), (512, (1 << 32) + 3, 2));
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert_eq!(Superblock::parse(&[0; 127]), Err(SuperblockError::TooShort(127)));
        assert_eq!(Superblock::parse(&[1; 128]), Err(SuperblockError::Magic(0x0101_0101)));
        assert_eq!(Superblock::parse(&bytes(8, 0)), Err(SuperblockError::BlockSize(8)));
        assert_eq!(Superblock::parse(&bytes(255, 0)), Err(SuperblockError::BlockSize(255)));
    }

    #[test]
    fn crc32c_is_castagnolis() {
        // The check value of CRC-32/ISCSI, before its final inversion.
        assert_eq!(!crc32c(b"123456789".iter().copied()), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), real: bool) {
            if real && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&[0xe2, 0xe1, 0xf5, 0xe0]);
            }
            if let Ok(superblock) = Superblock::parse(&bytes) {
                prop_assert!(superblock.block_size.is_power_of_two());
                superblock.size();
            }
        }
    }
}
