//! Debian's package manager: installs what is missing.

use std::process::Command;

use anyhow::{Result, bail};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_installed_when_nothing_is_missing() {
        install(&[Need { program: "sh", package: "no-such-package" }]).unwrap();
    }
}
