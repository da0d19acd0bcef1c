//! What never changes about a mount, remembered by its unique id.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::Path;

use crate::DeviceNumber;
use crate::lookup::{Lookup, LookupError};
use crate::mount::Mount;
use crate::sys::statx::{self, FileStat, statx};

/// What is fixed when a mount is made. The rest (where it is mounted, read-only, options) may change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountOrigin {
    /// The device of the filesystem.
    pub device: DeviceNumber,
    /// The filesystem's type.
    pub fs_type: OsString,
    /// The source as the mounter gave it.
    pub source: OsString,
}

/// Look-ups that ask the kernel about each mount only once.
///
/// A path costs one `statx(2)`, which tells the unique id of the mount that is visible there now; an id is never
/// given to another mount, so there is nothing to invalidate. Where the kernel has no unique ids (before
/// Linux 6.8) nothing is remembered.
#[derive(Debug)]
pub struct CachedLookup {
    lookup: Lookup,
    origins: HashMap<u64, MountOrigin>,
    /// The answer that is not to be remembered.
    unkept: Option<MountOrigin>,
}

/// The types of filesystem whose source is a text kept with the mount. Others, such as btrfs and NFS, make it up
/// anew each time it is asked for.
const KEPT: [&str; 9] = ["erofs", "ext2", "ext3", "ext4", "overlay", "ramfs", "squashfs", "tmpfs", "xfs"];

/// How many mounts are remembered before all are forgotten.
const MOST: usize = 8192;

impl Default for CachedLookup {
    fn default() -> Self {
        Self::new()
    }
}

impl CachedLookup {
    /// Remembers nothing yet.
    pub fn new() -> Self {
        Self { lookup: Lookup::new(), origins: HashMap::new(), unkept: None }
    }

    /// The visible mount whose mount point is `path`.
    ///
    /// # Errors
    /// As [`Lookup::at`].
    pub fn at(&mut self, path: impl AsRef<Path>) -> Result<&MountOrigin, LookupError> {
        let path = path.as_ref();
        let known = self.known(statx(None, path, false, statx::MNT_ID_UNIQUE).ok());
        match known {
            Some(id) => Ok(&self.origins[&id]),
            None => {
                let mount = self.lookup.at(path)?;
                Ok(keep(&mut self.origins, &mut self.unkept, &mount))
            }
        }
    }

    /// Like [`at`](Self::at), with a relative path taken from the open directory `dir`.
    ///
    /// # Errors
    /// As [`Lookup::at`].
    pub fn at_dir(&mut self, dir: impl AsFd, path: impl AsRef<Path>) -> Result<&MountOrigin, LookupError> {
        let (dir, path) = (dir.as_fd(), path.as_ref());
        let known = self.known(statx(Some(dir), path, false, statx::MNT_ID_UNIQUE).ok());
        match known {
            Some(id) => Ok(&self.origins[&id]),
            None => {
                let mount = self.lookup.at_dir(dir, path)?;
                Ok(keep(&mut self.origins, &mut self.unkept, &mount))
            }
        }
    }

    /// How many mounts are remembered.
    pub fn len(&self) -> usize {
        self.origins.len()
    }

    /// Whether no mount is remembered.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// The id of a mount that is remembered, if this is the root of one.
    fn known(&self, stat: Option<FileStat>) -> Option<u64> {
        let stat = stat.filter(|stat| stat.is_mount_root() == Some(true))?;
        stat.mount_id(statx::MNT_ID_UNIQUE).filter(|id| self.origins.contains_key(id))
    }
}

fn keep<'o>(
    origins: &'o mut HashMap<u64, MountOrigin>,
    unkept: &'o mut Option<MountOrigin>,
    mount: &Mount<'_>,
) -> &'o MountOrigin {
    let origin = MountOrigin {
        device: mount.device,
        fs_type: mount.fs_type.clone().into_owned(),
        source: mount.source.clone().into_owned(),
    };
    let may_keep = KEPT.iter().any(|kept| *mount.fs_type == **kept);
    match mount.unique_id.filter(|_| may_keep) {
        Some(id) => {
            if origins.len() >= MOST {
                origins.clear();
            }
            origins.entry(id).or_insert(origin)
        }
        None => unkept.insert(origin),
    }
}
