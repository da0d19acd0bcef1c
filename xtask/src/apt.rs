//! Debian's package manager: installs what is missing, and downloads packages that are only unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process;

/// A program, or any file by its absolute path, and the package that has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
}

/// Installs the packages of the programs that `PATH` does not have: as root, or else with sudo.
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    let missing = needs.iter().filter(|need| process::find(need.program).is_none()).map(|need| need.package);
    let missing: Vec<&str> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    if process::find("apt-get").is_none() {
        bail!("{} must be installed, and there is no apt-get to do it with", missing.join(", "));
    }
    let is_root = rustix::process::geteuid().is_root();
    if !is_root && process::find("sudo").is_none() {
        bail!(
            "packages are missing, and without root or sudo they cannot be installed. As root, run: {install}"
        );
    }
    println!("installing {}", missing.join(", "));
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new(if is_root { "env" } else { "sudo" });
        if !is_root {
            command.arg("env");
        }
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet=2"]);
        process::show(command.args(arguments))
    };
    let install = ["install", "--yes", "--no-install-recommends"].iter().chain(&missing).copied();
    let install: Vec<&str> = install.collect();
    // The lists may be missing, as on a fresh container, or older than the archive.
    apt_get(&install).or_else(|_| apt_get(&["update"]).and_then(|()| apt_get(&install)))
}

/// How apt finds packages to download: with the system's lists, or with lists of our own.
#[derive(Debug)]
pub(crate) struct Apt {
    options: Vec<String>,
    /// Our own lists, which go when they have been used.
    _lists: Option<TempDir>,
}

impl Apt {
    /// Calls `action` with the system's package lists. If that fails, since they are missing or stale, calls it again
    /// with fresh lists of our own. Neither needs root.
    pub(crate) fn try_with<T>(action: impl Fn(&Self) -> Result<T>) -> Result<T> {
        let system = Self { options: Vec::new(), _lists: None };
        action(&system).or_else(|_| action(&Self::fresh()?))
    }

    fn fresh() -> Result<Self> {
        let lists = TempDir::with_prefix("vc-apt-").context("cannot make a temporary directory")?;
        let partial = lists.path().join("lists/partial");
        fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
        let option = |name: &str, path: &str| format!("-oDir::{name}={}", lists.path().join(path).display());
        let options = vec![option("State::Lists", "lists"), option("Cache", "cache")];
        let apt = Self { options, _lists: Some(lists) };
        process::output(apt.command("apt-get").arg("update"))
            .context("apt cannot read its package sources")?;
        Ok(apt)
    }

    /// What `package` depends on, alternatives included.
    pub(crate) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let text = process::text(self.command("apt-cache").args(["depends", package]))?;
        Ok(parse_dependencies(&text))
    }

    /// Downloads `package` into `directory`; returns the file.
    pub(crate) fn download(&self, package: &str, directory: &Path) -> Result<PathBuf> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        // Into a directory of its own first: a download that is cut short must not look like a package.
        let incoming = tempfile::tempdir_in(directory)?;
        process::output(self.command("apt-get").args(["download", package]).current_dir(incoming.path()))?;
        let mut entries = fs::read_dir(incoming.path())?;
        let file = entries.next().context("apt-get download left no file")??;
        let target = directory.join(file.file_name());
        fs::rename(file.path(), &target).with_context(|| format!("cannot move {}", target.display()))?;
        Ok(target)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // As root, apt would download as a user of its own, who may not write below the target directory.
        command.args(&self.options).arg("-oAPT::Sandbox::User=root").env("LC_ALL", "C");
        command
    }
}

/// Unpacks a package into `directory`, without installing it.
pub(crate) fn unpack(package: &Path, directory: &Path) -> Result<()> {
    process::output(Command::new("dpkg-deb").arg("--extract").arg(package).arg(directory))?;
    Ok(())
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

    #[test]
    fn nothing_is_installed_when_nothing_is_missing() {
        install(&[Need { program: "sh", package: "no-such-package" }]).unwrap();
    }
}
