//! `/proc/mounts` of any bytes: no line is lost, and what is read can be written and read again.
#![no_main]

use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use vc_mountinfo::proc_mounts;

fn octal(name: &[u8]) -> String {
    name.iter().map(|b| format!("\\{b:03o}")).collect()
}

fuzz_target!(|text: &[u8]| {
    let mut lines = 0;
    for mount in proc_mounts::parse(text) {
        lines += 1;
        let Ok(mount) = mount else { continue };
        let names = [mount.source.as_bytes(), mount.mount_point.as_os_str().as_bytes(), mount.fs_type.as_bytes()];
        let mut written = names.map(octal).join(" ").into_bytes();
        written.extend([b" ", mount.options, b" 0 0"].concat());
        assert_eq!(proc_mounts::parse(&written).next(), Some(Ok(mount)));
    }
    assert_eq!(lines, text.split_inclusive(|b| *b == b'\n').count());
});
