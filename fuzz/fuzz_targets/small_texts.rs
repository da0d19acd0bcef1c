//! Escapes, device numbers, and the small files of sysfs and procfs, of any bytes.
#![no_main]

use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use vc_mountinfo::{DeviceNumber, fuzzing, unescape};

fn escape(text: &[u8], which: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(text.len() * 4);
    for &b in text {
        match which(b) {
            true => escaped.extend([b'\\', b'0' + (b >> 6), b'0' + (b >> 3 & 7), b'0' + (b & 7)]),
            false => escaped.push(b),
        }
    }
    escaped
}

fuzz_target!(|text: &[u8]| {
    assert!(unescape(text).len() <= text.len());
    assert_eq!(*unescape(&escape(text, |b| b" \t\n\\".contains(&b))), *text);
    assert_eq!(*unescape(&escape(text, |_| true)), *text);

    if let Some(device) = std::str::from_utf8(text).ok().and_then(|text| text.parse::<DeviceNumber>().ok()) {
        assert_eq!(device.to_string().parse(), Ok(device));
    }
    if let Some(number) = fuzzing::sysfs_number(text) {
        assert_eq!(fuzzing::sysfs_number(format!("{number}\n").as_bytes()), Some(number));
    }

    // Exactly one newline is the file's, those before it are the name's.
    assert_eq!(fuzzing::backing_file(&[text, b"\n"].concat()).as_os_str().as_bytes(), text);

    assert!(fuzzing::swaps(text).len() <= text.split(|b| *b == b'\n').count() - 1);
    let line = [&escape(text, |b| b" \t\n\\".contains(&b)), &b"\tpartition\t1\t0\t-2\n"[..]].concat();
    let names = fuzzing::swaps(&[b"Filename\n", &line[..], &line].concat());
    assert!(names.iter().all(|name| name.as_os_str().as_bytes() == text) && names.len() == 2);
});
