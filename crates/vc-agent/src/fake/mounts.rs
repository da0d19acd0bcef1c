//! What is mounted in the guest.

use std::collections::BTreeMap;

use vc_types::GuestPath;

use super::world::{Done, refused};
use crate::{Call, Storage, StorageDriver, VolumeStats, VolumeUsage};

/// Mounts, counted by their mount point, as several containers may use one.
#[derive(Debug, Default)]
pub(super) struct Mounts(BTreeMap<GuestPath, Mount>);

#[derive(Debug)]
struct Mount {
    users: u32,
    storage: Storage,
    /// The size that it was given later, in bytes.
    resized: Option<u64>,
}

impl Mounts {
    pub(super) fn points(&self) -> Vec<GuestPath> {
        self.0.keys().cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Mounts all of `storages`, or none.
    pub(super) fn add(&mut self, call: Call, storages: &[Storage]) -> Done {
        for (index, storage) in storages.iter().enumerate() {
            if let Some(missing) = self.missing_layer(storage) {
                self.remove(&storages[..index]);
                return refused(call, &format!("nothing is mounted at {missing}, a layer of an overlay"));
            }
            let new = || Mount { users: 0, storage: storage.clone(), resized: None };
            self.0.entry(storage.mount_point.clone()).or_insert_with(new).users += 1;
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, storages: &[Storage]) {
        for storage in storages.iter().rev() {
            if let Some(mount) = self.0.get_mut(&storage.mount_point) {
                mount.users -= 1;
            }
            self.0.retain(|_, mount| mount.users > 0);
        }
    }

    /// Gives ephemeral mounts other options.
    pub(super) fn update(&mut self, storages: &[Storage]) -> Done {
        let call = Call::UpdateEphemeralMounts;
        for storage in storages {
            match self.0.get_mut(&storage.mount_point) {
                Some(mount) if mount.storage.driver == StorageDriver::Ephemeral => {
                    mount.storage.options = storage.options.clone();
                }
                _ => return refused(call, &format!("nothing ephemeral is at {}", storage.mount_point)),
            }
        }
        Ok(())
    }

    /// How full the file system is that is mounted at `path`.
    pub(super) fn stats(&self, path: &GuestPath) -> Done<VolumeStats> {
        let Some(mount) = self.0.get(path) else {
            return refused(Call::GetVolumeStats, &format!("nothing is mounted at {path}"));
        };
        let total = mount.storage.options.iter().find_map(|option| size(option.strip_prefix("size=")?));
        let total = mount.resized.or(total).unwrap_or(1 << 30);
        let usage = VolumeUsage { total, used: 0, available: total };
        Ok(VolumeStats { bytes: Some(usage), inodes: Some(usage), fault: None })
    }

    /// Lets the file system of a disk grow. How large the disk is, the model does not know.
    pub(super) fn resize(&mut self, path: &GuestPath, bytes: u64) -> Done {
        let of_disk = [StorageDriver::Block, StorageDriver::Scsi];
        match self.0.get_mut(path) {
            Some(mount) if of_disk.contains(&mount.storage.driver) => mount.resized = Some(bytes),
            _ => return refused(Call::ResizeVolume, &format!("no disk is mounted at {path}")),
        }
        Ok(())
    }

    /// The first layer of an overlay that is not mounted.
    fn missing_layer<'s>(&self, storage: &'s Storage) -> Option<&'s str> {
        if storage.driver != StorageDriver::Overlay {
            return None;
        }
        let options = storage.options.iter().flat_map(|options| options.split(','));
        let mut layers =
            options.filter_map(|option| option.strip_prefix("lowerdir=")).flat_map(|dirs| dirs.split(':'));
        layers.find(|layer| !self.0.keys().any(|mount| is_at_or_below(layer, mount)))
    }
}

/// A size as tmpfs(5) takes it, in bytes.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn is_at_or_below(path: &str, mount: &GuestPath) -> bool {
    path.strip_prefix(mount.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
