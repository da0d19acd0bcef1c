//! Debian's kernel package: found by its stable name, downloaded with apt's own checks, unpacked but never installed.
//!
//! None of this needs root. Where the system's package lists are missing or stale, apt gets lists of its own below the
//! target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

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
    if !process::exists("apt-get") {
        bail!("no apt-get to take Debian's kernel from; name your own kernel with --kernel and --modules");
    }
    println!("guest: downloading Debian's kernel package");
    let package = Apt::system().download(cache).or_else(|_| {
        let apt = Apt::private(cache)?;
        process::output(apt.command("apt-get").arg("update"))
            .context("apt cannot read its package sources")?;
        apt.download(cache)
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
    process::output(Command::new("dpkg-deb").arg("--extract").arg(package).arg(directory))?;
    let kernel = only_entry(&directory.join("boot"), "vmlinuz-")?;
    // Since Debian 13 below /usr.
    let trees = ["lib/modules", "usr/lib/modules"].map(|tree| directory.join(tree));
    let tree = trees.iter().find(|tree| tree.is_dir()).context("the kernel package has no modules")?;
    Ok((kernel, only_entry(tree, "")?))
}

/// How apt is called: with the system's lists, or with lists of our own.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn system() -> Self {
        Self { options: Vec::new() }
    }

    fn private(cache: &Path) -> Result<Self> {
        let lists = cache.join("apt/lists");
        fs::create_dir_all(lists.join("partial"))
            .with_context(|| format!("cannot make {}", lists.display()))?;
        let option = |name: &str, path: &Path| format!("-oDir::{name}={}", path.display());
        Ok(Self { options: vec![option("State::Lists", &lists), option("Cache", &cache.join("apt/cache"))] })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // As root, apt would download as its own user, who may not write below the target directory.
        command.args(&self.options).arg("-oAPT::Sandbox::User=root").env("LC_ALL", "C");
        command
    }

    fn download(&self, cache: &Path) -> Result<PathBuf> {
        let meta = process::text(self.command("apt-cache").args(["depends", META_PACKAGE]))?;
        let name = kernel_of(&meta)
            .with_context(|| format!("apt knows no package that {META_PACKAGE} depends on"))?;
        fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
        // Into a directory of its own first: a download that is cut short must not look like a package.
        let incoming = tempfile::tempdir_in(cache)?;
        process::output(self.command("apt-get").args(["download", name]).current_dir(incoming.path()))?;
        let incoming = find(incoming.path())?.context("apt-get download left no package")?;
        let package = cache.join(incoming.file_name().context("a package without a name")?);
        fs::rename(&incoming, &package).with_context(|| format!("cannot move {}", package.display()))?;
        Ok(package)
    }
}

/// The kernel that the meta package depends on, from what `apt-cache depends` writes.
fn kernel_of(depends: &str) -> Option<&str> {
    let names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.map(str::trim).find(|name| name.starts_with("linux-image-"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_the_package_depended_on() {
        let output = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(kernel_of(output), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(kernel_of("N: Unable to locate package\n"), None);
    }
}
