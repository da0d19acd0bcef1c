//! The packages of a kernel, and the directory that keeps them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::PackageError;
use super::apt::{Apt, unpack};
use crate::command;
use crate::file::{FileError, TEMPORARY, list, read, temporary_in};
use crate::lock::lock;
use crate::manifest::sha256;

/// A package whose name changes with its version, and the one that always depends on the newest.
#[derive(Clone, Copy, Debug)]
pub struct Versioned {
    meta_package: &'static str,
    prefix: &'static str,
    what: &'static str,
}

/// The kernel that Debian builds for machines like ours.
pub const KERNEL: Versioned =
    Versioned { meta_package: "linux-image-cloud-amd64", prefix: "linux-image-", what: "kernel package" };

/// The source that it is built from, with Debian's patches.
pub const KERNEL_SOURCE: Versioned =
    Versioned { meta_package: "linux-source", prefix: "linux-source-", what: "kernel source" };

/// The file of a package. While this is held, nobody else takes one from the same directory, or replaces it.
#[derive(Debug)]
pub struct Package {
    path: PathBuf,
    cache: PathBuf,
    _lock: File,
}

/// A kernel's package, unpacked. That goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) kernel: PathBuf,
    pub(crate) modules: PathBuf,
    _directory: TempDir,
}

impl Package {
    /// The package in the directory `cache`, downloaded if there is none yet or if `update` asks for the newest. Waits
    /// while another one from `cache` is held. `tell` hears of a download, which takes a while.
    ///
    /// # Errors
    /// When there is no apt, when it fails, and when `cache` cannot be written to.
    pub fn fetch(
        wanted: &Versioned,
        cache: &Path,
        update: bool,
        tell: &dyn Fn(&str),
    ) -> Result<Self, PackageError> {
        let lock = lock(cache)?;
        let present = clean(cache, wanted.prefix)?;
        let path = match &present {
            Some(package) if !update => package.clone(),
            _ => download(wanted, cache, tell)?,
        };
        if let Some(old) = present.filter(|old| *old != path) {
            fs::remove_file(&old).map_err(FileError::of("remove", &old))?;
        }
        Ok(Self { path, cache: cache.to_owned(), _lock: lock })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the package says about itself: one field of its control file.
    ///
    /// # Errors
    /// With what dpkg-deb says when it fails.
    pub fn field(&self, name: &str) -> Result<String, PackageError> {
        let text = command::text(Command::new("dpkg-deb").arg("--field").arg(&self.path).arg(name))?;
        Ok(text.trim().to_owned())
    }

    /// For the manifest of an image.
    pub(crate) fn origin(&self) -> Result<Value, PackageError> {
        Ok(json!({
            "package": self.field("Package")?,
            "version": self.field("Version")?,
            "source": self.field("Source")?,
            "sha256": sha256(&read(&self.path)?),
        }))
    }

    /// Unpacks a kernel's package.
    pub(crate) fn unpack(&self) -> Result<Unpacked, PackageError> {
        let directory = temporary_in(&self.cache)?;
        unpack(&self.path, directory.path())?;
        let kernel = only_entry(&directory.path().join("boot"), "vmlinuz-")?;
        // Since Debian 13 below /usr.
        let [trees, before] = ["usr/lib/modules", "lib/modules"].map(|tree| directory.path().join(tree));
        let modules = only_entry(if trees.is_dir() { &trees } else { &before }, "")?;
        Ok(Unpacked { kernel, modules, _directory: directory })
    }

    /// Unpacks a source package, and the archive in it, into `directory`; returns the source tree.
    ///
    /// # Errors
    /// With what dpkg-deb or tar says when it fails.
    pub fn unpack_source(&self, directory: &Path) -> Result<PathBuf, PackageError> {
        unpack(&self.path, directory)?;
        let archive = only_entry(&directory.join("usr/src"), "linux-source-")?;
        command::output(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(directory))?;
        only_entry(directory, "linux-source-")
    }
}

fn download(wanted: &Versioned, cache: &Path, tell: &dyn Fn(&str)) -> Result<PathBuf, PackageError> {
    let Versioned { meta_package, prefix, what } = wanted;
    Apt::try_with(what, |apt| {
        tell(&format!("downloading Debian's {what}"));
        let depends = apt.dependencies(meta_package)?;
        let newest = depends.iter().find(|name| name.starts_with(prefix));
        apt.download(newest.ok_or(PackageError::NoVersion(meta_package))?, cache)
    })
}

/// The package in `cache` whose name begins with `prefix`. What runs left there that were killed is removed; nobody uses it, since the lock is ours.
fn clean(cache: &Path, prefix: &str) -> Result<Option<PathBuf>, FileError> {
    let mut packages = Vec::new();
    for path in list(cache)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(TEMPORARY) {
            fs::remove_dir_all(&path).map_err(FileError::of("remove", &path))?;
        } else if name.starts_with(prefix) && name.ends_with(".deb") {
            packages.push(path);
        }
    }
    // There is at most one, unless a run was ended between the arrival of a new one and the removal of the old.
    packages.sort();
    Ok(packages.pop())
}

fn only_entry(directory: &Path, prefix: &'static str) -> Result<PathBuf, PackageError> {
    let mut found = list(directory)?;
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    match found.as_slice() {
        [path] => Ok(path.clone()),
        _ => Err(PackageError::Entries { directory: directory.to_owned(), prefix, found: found.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_at_hand_is_taken_and_what_was_left_unfinished_goes() {
        let cache = tempfile::tempdir().unwrap();
        let unfinished = temporary_in(cache.path()).unwrap().keep();
        fs::write(unfinished.join("vmlinuz"), "half").unwrap();
        for name in ["linux-image-1.deb", "linux-source-2.deb"] {
            fs::write(cache.path().join(name), "").unwrap();
        }
        let told = |text: &str| panic!("nothing is downloaded: {text}");
        let package = Package::fetch(&KERNEL, cache.path(), false, &told).unwrap();
        assert_eq!(package.path(), cache.path().join("linux-image-1.deb"));
        drop(package);
        let source = Package::fetch(&KERNEL_SOURCE, cache.path(), false, &told).unwrap();
        assert_eq!(source.path(), cache.path().join("linux-source-2.deb"), "each is for itself");
        assert!(!unfinished.exists());
    }

    #[test]
    fn a_package_of_another_form_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let refused = || only_entry(directory.path(), "vmlinuz-").unwrap_err().to_string();
        assert!(refused().contains("has 0 entries vmlinuz-*"), "{}", refused());
        for name in ["vmlinuz-1", "vmlinuz-2", "other"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert!(refused().contains("has 2 entries vmlinuz-*"), "{}", refused());
    }
}
