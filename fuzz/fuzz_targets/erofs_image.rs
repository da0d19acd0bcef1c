//! A file of any bytes, opened as an image: what is accepted is whole.
#![no_main]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use vc_mountinfo::erofs::ErofsImage;

/// One file without a name for all runs.
fn file() -> &'static File {
    static FILE: OnceLock<File> = OnceLock::new();
    FILE.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("vc-fuzz-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    })
}

fuzz_target!(|bytes: &[u8]| {
    let file = file();
    // Once as it is, and once with the right magic and no checksum, which no mutation would hit.
    let mut likely = bytes.to_vec();
    if let Some(superblock) = likely.get_mut(1024..1024 + 12) {
        superblock[..4].copy_from_slice(&[0xe2, 0xe1, 0xf5, 0xe0]);
        superblock[8] &= !1;
    }
    for bytes in [bytes, &likely] {
        file.set_len(0).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        if let Ok(image) = ErofsImage::open(format!("/proc/self/fd/{}", file.as_raw_fd())) {
            assert_eq!(image.length(), bytes.len() as u64);
            assert!(image.superblock().size() <= image.length());
            assert_eq!(image.superblock().extra_devices, 0);
        }
    }
});
