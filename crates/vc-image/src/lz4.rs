//! LZ4's legacy format, the one that Linux uses for kernels and initrds: a magic number, then blocks that each follow
//! their compressed size (`doc/lz4_Frame_format.md` of LZ4, "Legacy frame").

use crate::DecompressError;

/// How such data starts.
pub(crate) const MAGIC: &[u8] = &[0x02, 0x21, 0x4c, 0x18];

/// What a block holds at most; all but the last hold as much.
const BLOCK: usize = 8 << 20;

/// Compresses `data`, magic number included.
pub(crate) fn compress(data: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for block in data.chunks(BLOCK) {
        let packed = lz4_flex::block::compress(block);
        let size = u32::try_from(packed.len()).expect("a block is small");
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&packed);
    }
    out
}

/// Decompresses what follows the magic number.
pub(crate) fn decompress(mut blocks: &[u8]) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::new();
    let mut buffer = vec![0; BLOCK];
    while !blocks.is_empty() {
        let (size, rest) = blocks.split_first_chunk().ok_or(DecompressError::Lz4CutShort)?;
        let size = usize::try_from(u32::from_le_bytes(*size)).ok();
        let (block, rest) =
            size.and_then(|size| rest.split_at_checked(size)).ok_or(DecompressError::Lz4CutShort)?;
        let length = lz4_flex::block::decompress_into(block, &mut buffer)?;
        out.extend_from_slice(&buffer[..length]);
        blocks = rest;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_comes_back() {
        for length in [0, 1, BLOCK, BLOCK + 1] {
            let data = b"a kernel, ".iter().cycle().take(length).copied().collect::<Vec<_>>();
            let packed = compress(&data);
            assert_eq!(decompress(packed.strip_prefix(MAGIC).unwrap()).unwrap(), data, "{length} bytes");
        }
    }

    #[test]
    fn data_that_is_cut_short_is_refused() {
        let packed = compress(&[7; 5000]);
        for length in [MAGIC.len() + 1, packed.len() - 1] {
            assert!(decompress(&packed[MAGIC.len()..length]).is_err(), "{length} bytes");
        }
    }
}
