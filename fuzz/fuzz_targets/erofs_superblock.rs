//! A superblock of any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vc_mountinfo::erofs::Superblock;

fuzz_target!(|bytes: &[u8]| {
    let mut real = bytes.to_vec();
    if let Some(magic) = real.first_chunk_mut() {
        *magic = [0xe2, 0xe1, 0xf5, 0xe0];
    }
    for bytes in [bytes, &real] {
        if let Ok(superblock) = Superblock::parse(bytes) {
            assert!(superblock.block_size.is_power_of_two());
            assert!(superblock.size() >= superblock.blocks);
        }
    }
});
