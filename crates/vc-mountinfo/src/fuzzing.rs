//! Doors for the fuzz targets to the parsers that no public function reaches. No part of the interface: they exist
//! only in a build with `--cfg fuzzing`.

use std::path::PathBuf;

use crate::sys::statmount::Answer;
use crate::{Fields, Mount, MountEvent};

/// Reads the buffer that `statmount` filled; `None` for one that it cannot have filled.
pub fn statmount_answer(buffer: &[u8]) -> Option<Mount<'_>> {
    let answer = Answer::parse(buffer).ok()?;
    answer.lacks_source();
    Some(Mount::from_answer(&answer, Fields::ALL))
}

/// Reads what fanotify reported.
pub fn mount_events(bytes: &[u8]) -> Vec<MountEvent> {
    crate::watch::parse_events(bytes)
}

/// Reads `/proc/swaps`.
pub fn swaps(text: &[u8]) -> Vec<PathBuf> {
    crate::device_use::parse_swaps(text).collect()
}

/// Reads `loop/backing_file` of a loop device in sysfs.
pub fn backing_file(text: &[u8]) -> PathBuf {
    crate::loop_device::parse_backing_file(text.to_vec())
}

/// Reads a number of sysfs.
pub fn sysfs_number(text: &[u8]) -> Option<u64> {
    crate::loop_device::parse_number(text)
}
