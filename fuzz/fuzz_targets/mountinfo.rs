//! A mount table of any bytes: the stream and the slice give the same, and each look-up ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vc_mountinfo::mountinfo::{self, MountInfoReader, ReadError};
use vc_mountinfo::{MountTable, OverlayOptions};

fuzz_target!(|text: &[u8]| {
    let mut reader = MountInfoReader::new(text);
    for want in mountinfo::parse(text) {
        match (reader.next_entry(), want) {
            (Ok(Some(entry)), Ok(want)) => assert_eq!(entry, want),
            (Err(ReadError::Malformed(line)), Err(want)) => assert_eq!(line, want),
            (got, want) => panic!("{got:?} instead of {want:?}"),
        }
    }
    assert!(reader.next_entry().unwrap().is_none());

    let table = MountTable::parse(text);
    assert_eq!(table.mounts.len() + table.malformed.len(), text.split_inclusive(|b| *b == b'\n').count());
    for mount in &table.mounts {
        let point = mount.mount_point.as_deref().unwrap();
        if let Some(found) = table.at(point) {
            assert_eq!(found.mount_point.as_deref(), Some(point));
        }
        table.covering(point.join("x"));
        let _ = OverlayOptions::from_mount_table(mount.fs_options.as_deref().unwrap());
    }
});
