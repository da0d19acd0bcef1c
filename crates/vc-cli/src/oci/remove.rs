//! Removing what a container left on the host.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};
use vc_mountinfo::{Mounts, ReadError};

use super::root::{ContainerDir, Lock};
use crate::failure::Failure;

/// Removes the directory of a container that nobody owns. Its name is free at once.
pub(crate) fn remove(dir: ContainerDir, lock: Lock) -> Result<(), Failure> {
    // First what only this directory's name leads to.
    let machine = dir.machine_dir();
    if machine.exists() {
        remove_tree(&machine)?;
    }
    unmount_below(dir.path())?;
    let step = format!("remove {}", dir.path().display());
    let gone = dir.retire().map_err(|error| Failure::step(step, error))?;
    drop(lock);
    remove_tree(&gone)
}

/// Removes a directory that nobody looks at any more, with what is mounted and stored in it.
pub(crate) fn remove_tree(dir: &Path) -> Result<(), Failure> {
    unmount_below(dir)?;
    fs::remove_dir_all(dir).map_err(|error| Failure::step(format!("remove {}", dir.display()), error))
}

/// Takes away every mount below the directory: what is mounted there is not to be removed with it.
fn unmount_below(dir: &Path) -> Result<(), Failure> {
    let step = |path: &Path| format!("unmount {}", path.display());
    let dir = dir.canonicalize().map_err(|error| Failure::step(step(dir), error))?;
    let mut below = mounts_below(&dir).map_err(|error| Failure::step("read the mount table", error))?;
    // The latest first: what lies on another was mounted after it.
    while let Some(at) = below.pop() {
        unmount(&at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .map_err(|error| Failure::step(step(&at), error))?;
    }
    Ok(())
}

fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let mut mounts = Mounts::by_table()?;
    let mut below = Vec::new();
    loop {
        match mounts.next_mount() {
            Ok(None) => return Ok(below),
            Ok(Some(mount)) => {
                below.extend(mount.mount_point.filter(|at| at.starts_with(dir)).map(Cow::into_owned));
            }
            // A line of somebody else's mount that makes no sense is no reason to leave ours.
            Err(ReadError::Malformed(_)) => {}
            Err(error) => return Err(error),
        }
    }
}
