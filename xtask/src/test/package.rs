//! Whether the crates that are published alone can be: each builds from its own package, and a program outside of this
//! workspace can use that.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::workspace::Workspace;

const PUBLISHED: [&str; 1] = ["vc-mountinfo"];

/// Packs each of them, has cargo build what was packed, and runs the program in its README against it.
pub(super) fn check(workspace: &Workspace) -> Result<()> {
    for name in PUBLISHED {
        let mut command = workspace.cargo();
        command.args(["package", "--quiet", "--locked", "--allow-dirty", "--package", name]);
        process::show(&mut command)?;
        let answer = use_package(workspace, name, &unpacked(workspace, name)?)?;
        println!("{name}: builds from its package; the program in its README says: {}", answer.trim_end());
    }
    Ok(())
}

/// Where cargo has unpacked the package to build it.
fn unpacked(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let path = workspace.target.join("package").join(format!("{name}-{}", env!("CARGO_PKG_VERSION")));
    ensure!(path.join("Cargo.toml").is_file(), "cargo left no package at {}", path.display());
    Ok(path)
}

/// Builds and runs the program of the package's README in a crate of its own, far from this workspace.
fn use_package(workspace: &Workspace, name: &str, package: &Path) -> Result<String> {
    let readme = fs::read_to_string(package.join("README.md")).context("the package has no README.md")?;
    let program = program(&readme).with_context(|| format!("the README of {name} has no program"))?;
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let at = |name: &str| directory.path().join(name);
    let manifest = format!(
        "[package]\nname = \"{name}-user\"\nedition = \"2024\"\n\n[dependencies]\n{name} = {{ path = {package:?} }}\n"
    );
    fs::create_dir(at("src"))?;
    fs::write(at("src/main.rs"), program)?;
    fs::write(at("Cargo.toml"), manifest)?;
    // The versions that everything else was tested with.
    fs::copy(workspace.root.join("Cargo.lock"), at("Cargo.lock"))?;
    let mut command = workspace.cargo();
    command.args(["run", "--quiet", "--", "/"]).current_dir(directory.path());
    process::text(command.env("CARGO_TARGET_DIR", workspace.target.join("package/use")))
}

/// The first block of Rust.
fn program(readme: &str) -> Option<&str> {
    readme.split_once("\n```rust")?.1.split_once('\n')?.1.split_once("\n```").map(|(program, _)| program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_the_first_block_of_rust() {
        let readme = "# x\n\n```sh\nno\n```\n\n```rust,no_run\nfn main() {\n}\n```\n\n```rust\nno\n```\n";
        assert_eq!(program(readme), Some("fn main() {\n}"));
        assert_eq!(program("# x\n"), None);
    }
}
