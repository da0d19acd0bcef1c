//! LZ4's legacy format, the one that Linux uses for kernels and initrds: a magic number, then blocks that each follow
//! their compressed size (`doc/lz4_Frame_format.md` of LZ4, "Legacy frame").

use anyhow::{Context, Result, ensure};

/// How such data starts.
pub(super) const MAGIC: &[u8] = &[0x02, 0x21, 0x4c, 0x18];

/// What a block holds at most; all but the last hold as much.
const BLOCK: usize = 8 << 20;

/// Compresses `data`, magic number included.
pub(super) fn compress(data: &[u8]) -> Result<Vec<u8>> {
    let mut out = MAGIC.to_vec();
    for block in data.chunks(BLOCK) {
        let packed = lz4_flex::block::compress(block);
        out.extend_from_slice(&u32::try_from(packed.len())?.to_le_bytes());
        out.extend_from_slice(&packed);
    }
    Ok(out)
}

/// Decompresses what follows the magic number.
pub(super) fn decompress(mut blocks: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut buffer = vec![0; BLOCK];
    while !blocks.is_empty() {
        let (size, rest) = blocks.split_first_chunk().context("a block's size is cut short")?;
        let size = usize::try_from(u32::from_le_bytes(*size))?;
        ensure!(size <= rest.len(), "a block has {} of its {size} bytes", rest.len());
        let (block, rest) = rest.split_at(size);
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
            let packed = compress(&data).unwrap();
            assert_eq!(decompress(packed.strip_prefix(MAGIC).unwrap()).unwrap(), data, "{length} bytes");
        }
    }

    #[test]
    fn data_that_is_cut_short_is_refused() {
        let packed = compress(&[7; 5000]).unwrap();
        for length in [MAGIC.len() + 1, packed.len() - 1] {
            assert!(decompress(&packed[MAGIC.len()..length]).is_err(), "{length} bytes");
        }
    }
}
