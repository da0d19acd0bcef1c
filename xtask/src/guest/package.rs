//! Debian's kernel package: found by its stable name, downloaded with apt's own checks, unpacked but never installed.
//!
//! None of this needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::{self, Apt};
use crate::process;

/// Depends on the newest kernel of the release, whose name has the version in it.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// The kernel package in `cache`, downloaded if there is none yet or if `update` asks for the newest.
pub(super) fn fetch(cache: &Path, update: bool) -> Result<PathBuf> {
    let present = find(cache)?;
    match present {
        Some(package) if !update => return Ok(package),
        _ => {}
    }
    if process::find("apt-get").is_none() {
        bail!("no apt-get to take Debian's kernel from; name your own kernel with --kernel and --modules");
    }
    println!("guest: downloading Debian's kernel package");
    let package = Apt::try_with(|apt| {
        let depends = apt.dependencies(META_PACKAGE)?;
        let kernel = depends.iter().find(|name| name.starts_with("linux-image-"));
        apt.download(kernel.with_context(|| format!("apt knows no kernel behind {META_PACKAGE}"))?, cache)
    });
    let package =
        package.context("cannot have Debian's kernel; name your own with --kernel and --modules")?;
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
