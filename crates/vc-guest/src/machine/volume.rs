//! GetVolumeStats and ResizeVolume.

use crate::sys;
use nix::errno::Errno;
use nix::sys::statfs::{EXT4_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::fstatvfs;
use std::fs::File;
use std::io::ErrorKind;
use vc_agent_protocol::csi::{Unit, VolumeCondition, VolumeStatsResponse, VolumeUsage};
use vc_types::{GuestPath, InvalidPath};

/// Why nothing is known of a volume, or it keeps its size.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The path is not usable.
    #[error("{0:?} is no volume")]
    Path(String, #[source] InvalidPath),
    /// There is nothing at the path.
    #[error("there is no volume at {0}")]
    Absent(GuestPath),
    /// The volume does not answer.
    #[error("cannot look at the volume at {0}")]
    Look(GuestPath, #[source] Errno),
    /// A file system that this agent cannot resize.
    #[error("the volume at {0} is no ext4, which is all that this agent can resize")]
    Kind(GuestPath),
    /// The kernel refuses the new size.
    #[error("cannot make the volume at {path} {size} bytes large")]
    Resize {
        /// The volume.
        path: GuestPath,
        /// The size asked for.
        size: u64,
        /// Why.
        #[source]
        errno: Errno,
    },
}

/// How much of the volume at `path` is used.
pub(crate) fn stats(path: &str) -> Result<VolumeStatsResponse, VolumeError> {
    let (path, volume) = open(path)?;
    let found = fstatvfs(&volume).map_err(|errno| VolumeError::Look(path, errno))?;
    let usage = |unit: Unit, total: u64, free: u64, available: u64, size: u64| VolumeUsage {
        total: total.saturating_mul(size),
        available: available.saturating_mul(size),
        used: total.saturating_sub(free).saturating_mul(size),
        unit: unit.into(),
        ..Default::default()
    };
    let size = found.fragment_size();
    let bytes = usage(Unit::BYTES, found.blocks(), found.blocks_free(), found.blocks_available(), size);
    let inodes = usage(Unit::INODES, found.files(), found.files_free(), found.files_available(), 1);
    let condition = VolumeCondition { abnormal: false, message: "OK".to_owned(), ..Default::default() };
    Ok(VolumeStatsResponse {
        usage: vec![bytes, inodes],
        volume_condition: Some(condition).into(),
        ..Default::default()
    })
}

/// Lets the file system at `path` grow to `size` bytes; its device must be as large already.
pub(crate) fn resize(path: &str, size: u64) -> Result<(), VolumeError> {
    let (path, volume) = open(path)?;
    let found = fstatfs(&volume).map_err(|errno| VolumeError::Look(path.clone(), errno))?;
    if found.filesystem_type() != EXT4_SUPER_MAGIC {
        return Err(VolumeError::Kind(path));
    }
    let block = u64::try_from(found.block_size()).unwrap_or(4096).max(1);
    sys::resize_ext4(&volume, size / block).map_err(|errno| VolumeError::Resize { path, size, errno })
}

fn open(path: &str) -> Result<(GuestPath, File), VolumeError> {
    let checked =
        GuestPath::new(path).map_err(|error| VolumeError::Path(path.chars().take(200).collect(), error))?;
    match File::open(checked.as_str()) {
        Ok(volume) => Ok((checked, volume)),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(VolumeError::Absent(checked)),
        Err(error) => {
            Err(VolumeError::Look(checked, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_bytes_and_inodes() {
        let answer = stats("/dev/shm").unwrap();
        let [bytes, inodes] = &answer.usage[..] else { panic!("{answer:?}") };
        assert_eq!((bytes.unit.enum_value(), inodes.unit.enum_value()), (Ok(Unit::BYTES), Ok(Unit::INODES)));
        assert!(bytes.total > 0 && bytes.used + bytes.available <= bytes.total, "{bytes:?}");
        assert!(!answer.volume_condition.abnormal);
    }

    #[test]
    fn what_is_no_volume_is_told() {
        assert!(matches!(stats("relative"), Err(VolumeError::Path(..))));
        assert!(matches!(stats("/nonexistent"), Err(VolumeError::Absent(_))));
        assert!(matches!(resize("/dev/shm", 1 << 20), Err(VolumeError::Kind(_))));
    }
}
