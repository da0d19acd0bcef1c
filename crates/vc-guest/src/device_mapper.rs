//! Devices of the kernel's device mapper, by its ioctl interface (`linux/dm-ioctl.h`).

use crate::sys;
use nix::errno::Errno;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

const CONTROL: &str = "/dev/mapper/control";

/// What is asked of the device mapper.
const CREATE: u8 = 3;
const REMOVE: u8 = 4;
/// Without a flag that says otherwise, the device is resumed.
const SUSPEND: u8 = 6;
const LOAD: u8 = 9;

const READ_ONLY: u32 = 1 << 0;
/// Removed when its last user closes it.
const DEFERRED: u32 = 1 << 17;

/// `struct dm_ioctl`.
const HEADER: usize = 312;
/// `struct dm_target_spec`, which the target's line follows.
const TARGET: usize = 40;
const SECTOR: u64 = 512;

/// Where the fields are that this module reads or writes.
const AT_TARGETS: usize = 20;
const AT_FLAGS: usize = 28;
const AT_DEVICE: usize = 40;
const AT_NAME: usize = 48;

/// A step that the device mapper refuses.
#[derive(Debug, thiserror::Error)]
#[error("the device mapper cannot {step}")]
pub struct MapperError {
    step: &'static str,
    #[source]
    errno: Errno,
}

impl MapperError {
    fn step(step: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self { step, errno }
    }
}

/// A read-only device.
#[derive(Debug)]
pub(crate) struct Device {
    name: String,
    minor: u32,
}

impl Device {
    /// Makes a device of one target, which covers all of its `size` bytes.
    ///
    /// # Errors
    /// The step that failed; nothing of the device is left.
    pub(crate) fn create(target: &str, line: &str, size: u64) -> Result<Self, MapperError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vc-{target}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let answer = call(CREATE, &name, READ_ONLY, None).map_err(MapperError::step("make the device"))?;
        let device = Self { minor: minor(&answer), name };
        let loaded = call(LOAD, &device.name, READ_ONLY, Some(&target_spec(target, line, size)))
            .map_err(MapperError::step("load the table of the device"))
            .and_then(|_| {
                call(SUSPEND, &device.name, 0, None).map_err(MapperError::step("activate the device"))
            });
        if let Err(error) = loaded {
            if let Err(error) = device.remove() {
                tracing::warn!(error = crate::log::chain(&error), "undo failed: a device stays");
            }
            return Err(error);
        }
        Ok(device)
    }

    /// The node of the device.
    pub(crate) fn node(&self) -> PathBuf {
        PathBuf::from(format!("/dev/dm-{}", self.minor))
    }

    /// Removes the device, once its last user has closed it.
    ///
    /// # Errors
    /// [`MapperError`]; the device stays.
    pub(crate) fn remove(self) -> Result<(), MapperError> {
        call(REMOVE, &self.name, DEFERRED, None).map(drop).map_err(MapperError::step("remove the device"))
    }
}

/// `struct dm_target_spec` for all sectors, and the line, padded.
fn target_spec(target: &str, line: &str, size: u64) -> Vec<u8> {
    let mut spec = vec![0; TARGET + (line.len() + 1).next_multiple_of(8)];
    spec[8..16].copy_from_slice(&(size / SECTOR).to_ne_bytes());
    spec[24..24 + target.len()].copy_from_slice(target.as_bytes());
    spec[TARGET..TARGET + line.len()].copy_from_slice(line.as_bytes());
    spec
}

fn call(command: u8, name: &str, flags: u32, target: Option<&[u8]>) -> Result<Vec<u8>, Errno> {
    let control = File::options().read(true).write(true).open(CONTROL);
    let control = control.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    let mut message = vec![0; HEADER];
    message[AT_TARGETS..AT_TARGETS + 4].copy_from_slice(&u32::from(target.is_some()).to_ne_bytes());
    message[AT_FLAGS..AT_FLAGS + 4].copy_from_slice(&flags.to_ne_bytes());
    message[AT_NAME..AT_NAME + name.len()].copy_from_slice(name.as_bytes());
    message.extend_from_slice(target.unwrap_or_default());
    sys::device_mapper(&control, command, &mut message)?;
    Ok(message)
}

/// The minor number of a `dev_t` as the kernel packs it for user space (`huge_encode_dev`).
fn minor(message: &[u8]) -> u32 {
    let low =
        |at: usize| u32::from_ne_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]]);
    let device = low(AT_DEVICE);
    device & 0xff | device >> 12 & 0xf_ff00
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_covers_whole_sectors_and_its_line_ends_with_nul() {
        let spec = target_spec("verity", "1 /dev/vdb", 8192);
        assert_eq!(spec.len(), TARGET + 16);
        assert_eq!(spec[8..16], 16u64.to_ne_bytes());
        assert_eq!(&spec[24..31], b"verity\0");
        assert_eq!(&spec[TARGET..], b"1 /dev/vdb\0\0\0\0\0\0");
    }

    #[test]
    fn minors_above_255_are_decoded() {
        let mut message = vec![0; HEADER];
        // makedev(253, 300): the low byte, then the major, then the rest of the minor.
        let device: u32 = 300 & 0xff | 253 << 8 | (300 >> 8) << 20;
        message[AT_DEVICE..AT_DEVICE + 4].copy_from_slice(&device.to_ne_bytes());
        assert_eq!(minor(&message), 300);
    }
}
