//! Debian's kernel packages: found by a stable name, downloaded with apt's own checks, unpacked but never installed.
//!
//! None of this needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::{self, Apt};
use crate::process;

/// A package whose name changes with its version, and the one that always depends on the newest.
#[derive(Debug)]
pub(super) struct Versioned {
    meta_package: &'static str,
    prefix: &'static str,
    what: &'static str,
}

/// The kernel that Debian builds for machines like ours.
pub(super) const IMAGE: Versioned =
    Versioned { meta_package: "linux-image-cloud-amd64", prefix: "linux-image-", what: "kernel package" };

/// The source that it is built from, with Debian's patches.
pub(super) const SOURCE: Versioned =
    Versioned { meta_package: "linux-source", prefix: "linux-source-", what: "kernel source" };

/// The package in `cache`, downloaded if there is none yet or if `update` asks for the newest.
pub(super) fn fetch(wanted: &Versioned, cache: &Path, update: bool) -> Result<PathBuf> {
    let Versioned { meta_package, prefix, what } = wanted;
    let present = find(cache)?;
    match present {
        Some(package) if !update => return Ok(package),
        _ => {}
    }
    if process::find("apt-get").is_none() {
        bail!("no apt-get to take Debian's {what} from; name your own kernel with --kernel and --modules");
    }
    println!("guest: downloading Debian's {what}");
    let package = Apt::try_with(|apt| {
        let depends = apt.dependencies(meta_package)?;
        let newest = depends.iter().find(|name| name.starts_with(prefix));
        apt.download(newest.with_context(|| format!("apt knows no package behind {meta_package}"))?, cache)
    });
    let package = package.with_context(|| {
        format!("cannot have Debian's {what}; name your own kernel with --kernel and --modules")
    })?;
    if let Some(old) = present.filter(|old| *old != package) {
        fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    Ok(package)
}

/// What the package says about itself: one field of its control file.
pub(super) fn field(package: &Path, name: &str) -> Result<String> {
    let text = process::text(Command::new("dpkg-deb").arg("--field").arg(package).arg(name))?;
    Ok(text.trim().to_owned())
}

/// Unpacks the package into `directory`; returns its kernel and its tree of modules.
pub(super) fn unpack(package: &Path, directory: &Path) -> Result<(PathBuf, PathBuf)> {
    apt::unpack(package, directory)?;
    let kernel = only_entry(&directory.join("boot"), "vmlinuz-")?;
    // Since Debian 13 below /usr.
    let trees = ["lib/modules", "usr/lib/modules"].map(|tree| directory.join(tree));
    let tree = trees.iter().find(|tree| tree.is_dir()).context("the kernel package has no modules")?;
    Ok((kernel, only_entry(tree, "")?))
}

/// Unpacks the package and the archive in it into `directory`; returns the source tree.
pub(super) fn unpack_source(package: &Path, directory: &Path) -> Result<PathBuf> {
    apt::unpack(package, directory)?;
    let archive = only_entry(&directory.join("usr/src"), "linux-source-")?;
    process::output(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(directory))?;
    only_entry(directory, "linux-source-")
}

fn find(directory: &Path) -> Result<Option<PathBuf>> {
    if !directory.exists() {
        return Ok(None);
    }
    let mut packages = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            packages.push(path);
        }
    }
    // There is at most one, unless a run was ended between the arrival of a new one and the removal of the old.
    packages.sort();
    Ok(packages.pop())
}

fn only_entry(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let matches =
        |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let found: Vec<_> = paths.iter().filter(matches).collect();
    match found.as_slice() {
        [path] => Ok((*path).clone()),
        _ => bail!("{} has {} entries {prefix}*, where one is expected", directory.display(), found.len()),
    }
}
