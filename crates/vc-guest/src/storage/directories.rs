//! The directories that a storage needed, to be removed with it.

use super::table::StorageError;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use std::fs::{File, create_dir, remove_dir, remove_dir_all, remove_file};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What was made for one storage.
#[derive(Debug, Default)]
pub(super) struct Directories {
    /// Removed only while empty, since others may have put something there.
    made: Vec<PathBuf>,
    /// Removed with all that the container wrote there, when that is in memory. On a disk it stays.
    trees: Vec<PathBuf>,
}

impl Directories {
    /// Makes `directory` and its missing parents.
    pub(super) fn make(&mut self, directory: &Path) -> Result<(), StorageError> {
        if directory.is_dir() {
            return Ok(());
        }
        if let Some(parent) = directory.parent() {
            self.make(parent)?;
        }
        match create_dir(directory) {
            Ok(()) => self.made.push(directory.into()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => {}
            Err(error) => return Err(StorageError::Directory(directory.into(), error)),
        }
        Ok(())
    }

    /// As [`make`](Self::make), for a directory that the container will write to.
    pub(super) fn make_tree(&mut self, directory: &Path) -> Result<(), StorageError> {
        let is_new = !directory.exists();
        self.make(directory)?;
        if is_new {
            self.trees.push(directory.into());
        }
        Ok(())
    }

    /// Makes an empty file to bind another one to.
    pub(super) fn make_file(&mut self, file: &Path) -> Result<(), StorageError> {
        if let Some(parent) = file.parent() {
            self.make(parent)?;
        }
        match File::create_new(file) {
            Ok(_) => self.made.push(file.into()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(StorageError::Directory(file.into(), error)),
        }
        Ok(())
    }

    /// Removes what was made; what cannot be removed stays and is logged.
    pub(super) fn remove(&self) {
        for tree in self.trees.iter().rev().filter(|tree| is_in_memory(tree) && !has_mounts(tree)) {
            if let Err(error) = remove_dir_all(tree) {
                tracing::warn!(?tree, %error, "cannot remove");
            }
        }
        for path in self.made.iter().rev() {
            let removed = if path.is_dir() { remove_dir(path) } else { remove_file(path) };
            if let Err(error) = removed {
                tracing::debug!(?path, %error, "stays");
            }
        }
    }
}

fn is_in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|filesystem| filesystem.filesystem_type() == TMPFS_MAGIC)
}

fn has_mounts(path: &Path) -> bool {
    // When in doubt nothing is removed.
    std::fs::read("/proc/self/mountinfo")
        .map_or(true, |table| !crate::mount::mount_points_below(&table, path).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_and_is_empty_or_in_memory_goes() {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = |name: &str| root.path().join(name);
        create_dir(path("old")).unwrap();
        let mut directories = Directories::default();
        directories.make_tree(&path("old")).unwrap();
        directories.make_tree(&path("new/upper")).unwrap();
        directories.make(&path("shared/mine")).unwrap();
        directories.make_file(&path("shared/file")).unwrap();
        std::fs::write(path("old/kept"), "").unwrap();
        std::fs::write(path("new/upper/written"), "").unwrap();
        std::fs::write(path("shared/of-another"), "").unwrap();
        directories.remove();
        let stays = |name: &str| path(name).exists();
        assert!(stays("old/kept") && stays("shared/of-another"));
        assert!(!stays("new") && !stays("shared/mine") && !stays("shared/file"));
    }
}
