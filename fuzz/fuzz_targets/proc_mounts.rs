//! `/proc/mounts` of any bytes: no line is lost.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vc_mountinfo::proc_mounts;

fuzz_target!(|text: &[u8]| {
    assert_eq!(proc_mounts::parse(text).count(), text.split_inclusive(|b| *b == b'\n').count());
});
