//! What was done for one storage, step by step, so that it can be undone.

use super::error::StorageError;
use super::hugepages::HugePages;
use super::verity::VerityDevice;
use super::watch::Watch;
use crate::modules::ModuleLoader;
use crate::mount::{Mount, mount_points_below, unmount};
use nix::errno::Errno;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use std::fs::{File, create_dir, remove_dir, remove_dir_all, remove_file};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// The steps of one storage, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Made(Vec<Step>);

#[derive(Debug)]
enum Step {
    /// Removed only while empty, since others may have put something there.
    Directory(PathBuf),
    /// An empty file that something is bound to.
    File(PathBuf),
    /// Removed with all that the container wrote there, when that is in memory. On a disk it stays.
    Tree(PathBuf),
    Mount(PathBuf),
    Verity(VerityDevice),
    Watch(Watch),
    HugePages(HugePages),
}

impl Made {
    /// Makes `directory` and its missing parents.
    pub(super) fn directory(&mut self, directory: &Path) -> Result<(), StorageError> {
        let made = match create_dir(directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let parent = directory.parent().ok_or_else(|| StorageError::Make(directory.into(), error))?;
                self.directory(parent)?;
                create_dir(directory)
            }
            made => made,
        };
        match made {
            Ok(()) => self.0.push(Step::Directory(directory.into())),
            Err(_) if directory.is_dir() => {}
            Err(error) => return Err(StorageError::Make(directory.into(), error)),
        }
        Ok(())
    }

    /// As [`directory`](Self::directory), for one that the container will write to. Whether it is new.
    pub(super) fn tree(&mut self, directory: &Path) -> Result<bool, StorageError> {
        let is_new = !directory.exists();
        self.directory(directory)?;
        if is_new {
            self.0.push(Step::Tree(directory.into()));
        }
        Ok(is_new)
    }

    /// Makes an empty file to bind another one to.
    pub(super) fn file(&mut self, file: &Path) -> Result<(), StorageError> {
        if let Some(parent) = file.parent() {
            self.directory(parent)?;
        }
        match File::create_new(file) {
            Ok(_) => self.0.push(Step::File(file.into())),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(StorageError::Make(file.into(), error)),
        }
        Ok(())
    }

    /// Makes the mount point and the mount.
    pub(super) fn mount(&mut self, mount: &Mount<'_>, modules: &ModuleLoader) -> Result<(), StorageError> {
        // A file, or a device node, is bound to a file.
        if mount.is_bind() && !Path::new(mount.source).is_dir() {
            self.file(mount.target)?;
        } else {
            self.directory(mount.target)?;
        }
        mount.make(modules).map_err(|errno| StorageError::Mount {
            fs_type: mount.fs_type.to_owned(),
            source_name: mount.source.to_owned(),
            mount_point: mount.target.to_owned(),
            errno,
        })?;
        self.0.push(Step::Mount(mount.target.to_owned()));
        Ok(())
    }

    /// Keeps the device until it is undone.
    pub(super) fn verity(&mut self, device: VerityDevice) {
        self.0.push(Step::Verity(device));
    }

    /// Keeps the watch until it is undone.
    pub(super) fn watch(&mut self, watch: Watch) {
        self.0.push(Step::Watch(watch));
    }

    /// Reserves huge pages.
    pub(super) fn huge_pages(&mut self, pages: HugePages) -> Result<(), StorageError> {
        pages.reserve(Path::new(HUGE_PAGES))?;
        self.0.push(Step::HugePages(pages));
        Ok(())
    }

    /// Undoes everything, the newest step first, and tells which mounts and devices stay.
    pub(super) fn undo(self) -> Vec<StorageError> {
        self.0.into_iter().rev().filter_map(|step| step.undo().err()).collect()
    }
}

impl Step {
    fn undo(self) -> Result<(), StorageError> {
        match self {
            Self::Mount(target) => match unmount(&target) {
                // Gone with what it stood on.
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
                Err(errno) => return Err(StorageError::Unmount(target, errno)),
            },
            Self::Verity(device) => device.remove()?,
            Self::Watch(watch) => watch.stop(),
            Self::HugePages(pages) => pages.release(Path::new(HUGE_PAGES))?,
            Self::Tree(tree) if is_in_memory(&tree) && !has_mounts(&tree) => {
                log_stays(&tree, remove_dir_all(&tree));
            }
            Self::Tree(_) => {}
            Self::Directory(path) => log_stays(&path, remove_dir(&path)),
            Self::File(path) => log_stays(&path, remove_file(&path)),
        }
        Ok(())
    }
}

fn log_stays(path: &Path, removed: std::io::Result<()>) {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => tracing::debug!(?path, %error, "stays"),
        _ => {}
    }
}

fn is_in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|filesystem| filesystem.filesystem_type() == TMPFS_MAGIC)
}

fn has_mounts(path: &Path) -> bool {
    // When in doubt nothing is removed.
    std::fs::read("/proc/self/mountinfo").map_or(true, |table| !mount_points_below(&table, path).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_and_is_empty_or_in_memory_goes() {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = |name: &str| root.path().join(name);
        create_dir(path("old")).unwrap();
        let mut made = Made::default();
        assert!(!made.tree(&path("old")).unwrap());
        assert!(made.tree(&path("new/upper")).unwrap());
        made.directory(&path("shared/mine")).unwrap();
        made.file(&path("shared/file")).unwrap();
        std::fs::write(path("old/kept"), "").unwrap();
        std::fs::write(path("new/upper/written"), "").unwrap();
        std::fs::write(path("shared/of-another"), "").unwrap();
        assert!(made.undo().is_empty());
        let stays = |name: &str| path(name).exists();
        assert!(stays("old/kept") && stays("shared/of-another"));
        assert!(!stays("new") && !stays("shared/mine") && !stays("shared/file"));
    }
}
