//! `cargo xtask tidy`: what the project asks of its own tree, and no compiler checks. The tests run it too.
//!
//! Each check is a function from text or metadata to complaints, so that it can be tested with bad input.

mod changelog;
mod closure;
mod layering;
mod manifest;
mod source;

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// Checks the tree; fails with every complaint.
pub(crate) fn run() -> Result<()> {
    let complaints = check(&Workspace::load()?)?;
    if !complaints.is_empty() {
        bail!("the tree is not tidy:\n  {}", complaints.join("\n  "));
    }
    println!("tidy: no complaints");
    Ok(())
}

fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut complaints = layering::complaints(&workspace.packages()?);
    complaints.extend(closure::complaints(workspace)?);
    complaints.extend(changelog::complaints(
        &read(&workspace.root.join("CHANGELOG.md"))?,
        env!("CARGO_PKG_VERSION"),
    ));
    let mut files = Vec::new();
    list(&workspace.root, &mut files).context("cannot list the workspace")?;
    files.sort();
    for file in &files {
        let name = file.strip_prefix(&workspace.root)?.display().to_string();
        if file.extension().is_some_and(|extension| extension == "rs") {
            complaints.extend(source::complaint(&name, &read(file)?));
        } else if name.ends_with("/Cargo.toml") {
            complaints.extend(manifest::complaint(&name, &read(file)?));
        }
    }
    Ok(complaints)
}

/// Every file below `directory`, except hidden ones and what cargo built.
fn list(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") || name == "target" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let complaints = check(&Workspace::load().unwrap()).unwrap();
        assert!(complaints.is_empty(), "\n  {}", complaints.join("\n  "));
    }

    #[test]
    fn the_walk_finds_sources_and_skips_what_was_built() {
        let tree = tempfile::tempdir().unwrap();
        for directory in ["a/src", "target/debug", ".git"] {
            fs::create_dir_all(tree.path().join(directory)).unwrap();
            fs::write(tree.path().join(directory).join("x.rs"), "").unwrap();
        }
        let mut files = Vec::new();
        list(tree.path(), &mut files).unwrap();
        assert_eq!(files, [tree.path().join("a/src/x.rs")]);
    }
}
