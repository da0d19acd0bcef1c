//! Downloads and unpacks packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::PackageError;
use crate::command;
use crate::file::{FileError, list, make_directory, rename, temporary_in};

/// Downloads the package of this name into `directory`; returns the file.
///
/// # Errors
/// When there is no apt, and with what it says when it fails.
pub fn download(package: &'static str, directory: &Path) -> Result<PathBuf, PackageError> {
    Apt::try_with(package, |apt| apt.download(package, directory))
}

/// Unpacks the file of a package into `directory`, without installing it.
///
/// # Errors
/// With what dpkg-deb says when it fails.
pub fn unpack(package: &Path, directory: &Path) -> Result<(), PackageError> {
    command::output(Command::new("dpkg-deb").arg("--extract").arg(package).arg(directory))?;
    Ok(())
}

/// How apt finds packages to download: with the system's lists, or with lists of our own.
#[derive(Debug)]
pub(super) struct Apt {
    options: Vec<String>,
    /// Our own lists, which go when they have been used.
    _lists: Option<TempDir>,
}

impl Apt {
    /// Calls `action`, which wants `what`, with the system's package lists. If that fails, since they are missing or
    /// stale, calls it again with fresh lists of our own. Neither needs root.
    pub(super) fn try_with<T>(
        what: &'static str,
        action: impl Fn(&Self) -> Result<T, PackageError>,
    ) -> Result<T, PackageError> {
        if command::find("apt-get").is_none() {
            return Err(PackageError::NoApt(what));
        }
        let system = Self { options: Vec::new(), _lists: None };
        action(&system).or_else(|_| action(&Self::fresh()?))
    }

    fn fresh() -> Result<Self, PackageError> {
        let lists = TempDir::with_prefix("vc-apt-");
        let lists = lists.map_err(FileError::of("make a directory in", &std::env::temp_dir()))?;
        make_directory(&lists.path().join("lists/partial"))?;
        let option = |name: &str, path: &str| format!("-oDir::{name}={}", lists.path().join(path).display());
        let options = vec![option("State::Lists", "lists"), option("Cache", "cache")];
        let apt = Self { options, _lists: Some(lists) };
        command::output(apt.command("apt-get").arg("update"))?;
        Ok(apt)
    }

    /// What `package` depends on, alternatives included.
    pub(super) fn dependencies(&self, package: &str) -> Result<Vec<String>, PackageError> {
        let text = command::text(self.command("apt-cache").args(["depends", package]))?;
        Ok(parse_dependencies(&text))
    }

    /// Downloads `package` into `directory`; returns the file.
    pub(super) fn download(&self, package: &str, directory: &Path) -> Result<PathBuf, PackageError> {
        make_directory(directory)?;
        // Into a directory of its own first: a download that is cut short must not look like a package.
        let incoming = temporary_in(directory)?;
        command::output(self.command("apt-get").args(["download", package]).current_dir(incoming.path()))?;
        let files = list(incoming.path())?;
        let file = files.first().ok_or_else(|| PackageError::NoFile(package.to_owned()))?;
        let target = directory.join(file.file_name().unwrap_or_default());
        rename(file, &target)?;
        Ok(target)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // As root, apt would download as a user of its own, who may not write where we want to have it.
        command.args(&self.options).arg("-oAPT::Sandbox::User=root").env("LC_ALL", "C");
        command
    }
}

fn parse_dependencies(text: &str) -> Vec<String> {
    let names = text.lines().filter_map(|line| line.trim().trim_start_matches('|').strip_prefix("Depends: "));
    names.map(|name| name.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_what_apt_cache_writes() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n |Depends: a\n  Suggests: b\n";
        assert_eq!(parse_dependencies(text), ["linux-image-6.1.0-56-cloud-amd64", "a"]);
        assert_eq!(parse_dependencies("N: Unable to locate package\n"), [""; 0]);
    }
}
