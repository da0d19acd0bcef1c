//! GetVolumeStats and ResizeVolume.

use crate::sys;
use crate::uevent::DeviceEvents;
use nix::errno::Errno;
use nix::sys::stat::{fstat, major, minor};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::fstatvfs;
use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;
use vc_agent_protocol::csi::{Unit, VolumeCondition, VolumeStatsResponse, VolumeUsage};
use vc_types::{Deadline, GuestPath, InvalidPath};

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

/// Lets the file system at `path` grow to `size` bytes. Its disk has grown on the host, or is about to: that is
/// waited for.
pub(crate) async fn resize(
    path: &str,
    size: u64,
    mut events: DeviceEvents,
    deadline: Deadline,
) -> Result<(), VolumeError> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let (path, volume) = open(&path)?;
        let found = fstatfs(&volume).map_err(|errno| VolumeError::Look(path.clone(), errno))?;
        if found.filesystem_type() != EXT4_SUPER_MAGIC {
            return Err(VolumeError::Kind(path));
        }
        let block = u64::try_from(found.block_size()).unwrap_or(4096).max(1);
        let disk = Disk::of(&volume).map_err(|errno| VolumeError::Look(path.clone(), errno))?;
        disk.look_again();
        Ok((path, volume, block, disk))
    });
    let (path, volume, block, disk) = opened.await.expect("looking does not panic")?;
    // What is there after the deadline is for the kernel to judge.
    while disk.bytes().is_some_and(|bytes| bytes < size)
        && tokio::time::timeout(deadline.remaining(), events.changed()).await.is_ok()
    {}
    let grow = move || {
        let grown = sys::resize_ext4(&volume, size / block);
        grown.map_err(|errno| VolumeError::Resize { path, size, errno })
    };
    tokio::task::spawn_blocking(grow).await.expect("growing does not panic")
}

/// The disk under a file system: its directory in sysfs.
struct Disk(PathBuf);

impl Disk {
    fn of(volume: &File) -> Result<Self, Errno> {
        let device = fstat(volume)?.st_dev;
        Ok(Self(format!("/sys/dev/block/{}:{}", major(device), minor(device)).into()))
    }

    /// Has the kernel ask a SCSI disk for its size. Those of virtio say it themselves.
    fn look_again(&self) {
        let rescan = self.0.join("device/rescan");
        if let Err(error) = std::fs::write(&rescan, "1")
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(?rescan, %error, "the kernel does not look for the disk's new size");
        }
    }

    /// Its size; in sysfs it is in sectors of 512 bytes, whatever the disk's are.
    fn bytes(&self) -> Option<u64> {
        let sectors = std::fs::read_to_string(self.0.join("size")).ok()?;
        sectors.trim().parse::<u64>().ok().map(|sectors| sectors.saturating_mul(512))
    }
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
    use std::time::Duration;

    #[test]
    fn a_volume_has_bytes_and_inodes() {
        let answer = stats("/dev/shm").unwrap();
        let [bytes, inodes] = &answer.usage[..] else { panic!("{answer:?}") };
        assert_eq!((bytes.unit.enum_value(), inodes.unit.enum_value()), (Ok(Unit::BYTES), Ok(Unit::INODES)));
        assert!(bytes.total > 0 && bytes.used + bytes.available <= bytes.total, "{bytes:?}");
        assert!(!answer.volume_condition.abnormal);
    }

    #[tokio::test]
    async fn what_is_no_volume_is_told() {
        assert!(matches!(stats("relative"), Err(VolumeError::Path(..))));
        assert!(matches!(stats("/nonexistent"), Err(VolumeError::Absent(_))));
        let events = DeviceEvents::from_receiver(tokio::sync::watch::channel(0).1);
        let resized = resize("/dev/shm", 1 << 20, events, Deadline::after(Duration::ZERO)).await;
        assert!(matches!(resized, Err(VolumeError::Kind(_))), "{resized:?}");
    }
}
