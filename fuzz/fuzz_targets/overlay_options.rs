//! Overlay options of any bytes: what is read can be written and read again.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use vc_mountinfo::OverlayOptions;

fuzz_target!(|options: &[u8]| {
    let given = OverlayOptions::from_mount_options([OsStr::from_bytes(options)]);
    let shown = OverlayOptions::from_mount_table(OsStr::from_bytes(options));
    for overlay in [given, shown].into_iter().flatten() {
        assert!(!overlay.lower.is_empty());
        assert!(overlay.lower.iter().all(|lower| !lower.path.as_os_str().is_empty()));
        // Once for data only, always for data only.
        assert!(overlay.lower.is_sorted_by_key(|lower| lower.data_only));

        let written: Vec<Vec<u8>> = overlay
            .lower
            .iter()
            .map(|lower| {
                let key: &[u8] = if lower.data_only { b"datadir+=" } else { b"lowerdir+=" };
                let octal =
                    lower.path.as_os_str().as_bytes().iter().flat_map(|b| format!("\\{b:03o}").into_bytes());
                key.iter().copied().chain(octal).collect()
            })
            .collect();
        let again = OverlayOptions::from_mount_table(OsStr::from_bytes(&written.join(&b','))).unwrap();
        assert_eq!(again.lower, overlay.lower);
    }
});
