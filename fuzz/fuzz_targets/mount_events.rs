//! What fanotify reports of mounts, of any bytes; and events as the kernel writes them, cut off anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vc_mountinfo::MountEvent;
use vc_mountinfo::fuzzing::mount_events;

/// `struct fanotify_event_metadata` and `struct fanotify_event_info_mnt` of linux/fanotify.h.
fn written(mask: u64, id: u64) -> [u8; 40] {
    let mut event = [0; 40];
    event[..4].copy_from_slice(&40_u32.to_ne_bytes());
    event[8..16].copy_from_slice(&mask.to_ne_bytes());
    event[24] = 7;
    event[32..].copy_from_slice(&id.to_ne_bytes());
    event
}

fuzz_target!(|bytes: &[u8]| {
    assert!(mount_events(bytes).len() <= bytes.len() / 24);

    let mut want = Vec::new();
    let mut report = Vec::new();
    for chunk in bytes.chunks_exact(9) {
        let id = u64::from_ne_bytes(*chunk.last_chunk().unwrap());
        let (mask, event) = match chunk[0] % 4 {
            0 => (0x0100_0000, MountEvent::Attached(id)),
            1 => (0x0200_0000, MountEvent::Detached(id)),
            2 => (0x0300_0000, MountEvent::Moved(id)),
            _ => (0x4000, MountEvent::Lost),
        };
        want.push(event);
        report.extend(written(mask, id));
    }
    assert_eq!(mount_events(&report), want);
    if let Some(byte) = bytes.first() {
        let whole = usize::from(*byte) * 40 / 256;
        report.extend(&written(0x0100_0000, 1)[..whole]);
        assert_eq!(mount_events(&report), want);
    }
});
