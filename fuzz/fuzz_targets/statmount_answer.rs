//! What `statmount` left in its buffer, of any bytes; and an answer as the kernel writes it, with any strings.
#![no_main]

use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use vc_mountinfo::fuzzing::statmount_answer;

/// `struct statmount` of linux/mount.h: where the offset of each string stands, and the bit that says it is there.
const STRINGS: [(usize, u64); 5] = [(36, 0x20), (124, 0x200), (108, 0x10), (104, 0x8), (4, 0x80)];

fuzz_target!(|bytes: &[u8]| {
    statmount_answer(bytes);
    let mut long = vec![0; 512];
    long[..bytes.len().min(512)].copy_from_slice(&bytes[..bytes.len().min(512)]);
    long.extend(bytes);
    let size = u32::try_from(long.len()).unwrap();
    long[..4].copy_from_slice(&size.to_ne_bytes());
    statmount_answer(&long).unwrap();

    let mut strings = bytes.split(|b| *b == 0);
    let strings: [&[u8]; STRINGS.len()] = std::array::from_fn(|_| strings.next().unwrap_or_default());
    let mut reply = vec![0; 512];
    let mut mask = 0x3_u64;
    for ((field, bit), string) in STRINGS.iter().zip(strings) {
        // What is empty the kernel leaves out.
        if !string.is_empty() {
            let offset = u32::try_from(reply.len() - 512).unwrap();
            reply[*field..field + 4].copy_from_slice(&offset.to_ne_bytes());
            reply.extend(string);
            reply.push(0);
            mask |= bit;
        }
    }
    reply[8..16].copy_from_slice(&mask.to_ne_bytes());
    let size = u32::try_from(reply.len()).unwrap();
    reply[..4].copy_from_slice(&size.to_ne_bytes());
    // Left there by an answer before.
    reply.extend(b"old");

    let mount = statmount_answer(&reply).unwrap();
    let [fs_type, source, point, root, options] = strings;
    assert_eq!(mount.fs_type.as_bytes(), fs_type);
    assert_eq!(mount.source.as_bytes(), source);
    assert_eq!(mount.mount_point.map(|path| path.as_os_str().as_bytes().to_vec()).unwrap_or_default(), point);
    assert_eq!(mount.root.map(|path| path.as_os_str().as_bytes().to_vec()).unwrap_or_default(), root);
    assert_eq!(mount.fs_options.unwrap().as_bytes(), options);
});
