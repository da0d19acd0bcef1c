//! The static library libseccomp, for the agent's seccomp filters: taken from Debian's package, which is unpacked and
//! never installed. None of this needs root.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vc_image::debian;

use crate::workspace::Workspace;

const PACKAGE: &str = "libseccomp-dev";
const LIBRARY: &str = "libseccomp.a";

/// Makes sure that the library is where `.cargo/config.toml` says.
pub(crate) fn ensure(workspace: &Workspace) -> Result<()> {
    let directory = workspace.root.join("target/libseccomp");
    if directory.join(LIBRARY).is_file() {
        return Ok(());
    }
    println!("downloading {PACKAGE}");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let unpacked = tempfile::tempdir_in(&directory).context("cannot make a temporary directory")?;
    let package = debian::download(PACKAGE, unpacked.path())
        .with_context(|| format!("cannot have {PACKAGE}; put a {LIBRARY} into {}", directory.display()))?;
    debian::unpack(&package, unpacked.path())?;
    let library = find(&unpacked.path().join("usr/lib"))?;
    // Last and in one step: what is there is whole.
    fs::rename(&library, directory.join(LIBRARY))
        .with_context(|| format!("cannot move {}", library.display()))
}

/// The library below `directory`, which has a directory for each architecture.
fn find(directory: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files = entries.flatten().map(|entry| entry.path().join(LIBRARY));
    files.find(|file| file.is_file()).with_context(|| format!("the package {PACKAGE} has no {LIBRARY}"))
}
