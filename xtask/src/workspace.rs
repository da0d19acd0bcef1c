//! Where things are and what belongs to the project, as cargo itself reports it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// The workspace as `cargo metadata` describes it.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The directory of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Where cargo builds, by default `target/` below the root.
    pub(crate) target: PathBuf,
    metadata: Value,
}

/// A package of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Whether it stands below `crates/`, among what others may use.
    pub(crate) is_library: bool,
    pub(crate) dependencies: Vec<Dependency>,
}

/// What a package depends on, as its manifest says.
#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) features: Vec<String>,
    pub(crate) default_features: bool,
}

/// Whether a dependency is needed to build the package, build script included, or only its tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Build,
    Development,
}

impl Workspace {
    /// Asks cargo about the workspace that this program was built from.
    pub(crate) fn load() -> Result<Self> {
        let mut command = cargo(Path::new(env!("CARGO_MANIFEST_DIR")));
        let text = process::output(command.args(["metadata", "--no-deps", "--format-version=1"]))?;
        let metadata: Value = serde_json::from_slice(&text).context("cargo metadata wrote no JSON")?;
        let path = |key: &str| text_of(&metadata, key).map(PathBuf::from);
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")?, metadata })
    }

    /// The packages of the workspace.
    pub(crate) fn packages(&self) -> Result<Vec<Package>> {
        let packages = self.metadata["packages"].as_array().context("cargo metadata has no packages")?;
        packages.iter().map(|package| self.package(package)).collect()
    }

    /// Whether the workspace has a package of this name.
    pub(crate) fn has_package(&self, name: &str) -> Result<bool> {
        Ok(self.packages()?.iter().any(|package| package.name == name))
    }

    /// The cargo that runs us, with the workspace as its directory and our tools behind the user's.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = cargo(&self.root);
        command.env("PATH", self.path());
        command
    }

    /// The command `vc` that was built here, with our guest image, and our tools behind the user's.
    pub(crate) fn vc(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("PATH", self.path()).env("VC_GUEST", self.guest_image());
        command
    }

    /// Where the guest image goes unless someone asks for another place.
    pub(crate) fn guest_image(&self) -> PathBuf {
        self.target.join("guest")
    }

    /// Where programs go that the project installs for itself; they are in its `bin/`.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The program of this name, the user's own before ours.
    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.path())
            .map(|directory| directory.join(program))
            .find(|file| file.is_file())
    }

    /// The user's `PATH` with our tools behind it.
    pub(crate) fn path(&self) -> OsString {
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        path.push(":");
        path.push(self.tools().join("bin"));
        path
    }

    fn package(&self, value: &Value) -> Result<Package> {
        let name = text_of(value, "name")?;
        let is_library = Path::new(&text_of(value, "manifest_path")?).starts_with(self.root.join("crates"));
        let dependencies = value["dependencies"].as_array().context("a package without dependencies")?;
        let dependencies = dependencies.iter().map(dependency).collect::<Result<_>>()?;
        Ok(Package { name, is_library, dependencies })
    }
}

fn dependency(value: &Value) -> Result<Dependency> {
    let kind = if value["kind"] == "dev" { Kind::Development } else { Kind::Build };
    let features = value["features"].as_array().into_iter().flatten();
    Ok(Dependency {
        name: text_of(value, "name")?,
        kind,
        features: features.filter_map(|feature| Some(feature.as_str()?.to_owned())).collect(),
        default_features: value["uses_default_features"] == true,
    })
}

fn text_of(value: &Value, key: &str) -> Result<String> {
    let text = value[key].as_str().with_context(|| format!("cargo metadata has no {key}"))?;
    Ok(text.to_owned())
}

fn cargo(directory: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(directory);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_package_is_found_with_its_dependencies() {
        let workspace = Workspace::load().unwrap();
        let packages = workspace.packages().unwrap();
        let xtask = packages.iter().find(|package| package.name == "xtask").unwrap();
        assert!(!xtask.is_library);
        assert!(xtask.dependencies.iter().any(|dependency| dependency.name == "anyhow"));
        let types = packages.iter().find(|package| package.name == "vc-types").unwrap();
        assert!(types.is_library);
        let proptest = types.dependencies.iter().find(|dependency| dependency.name == "proptest").unwrap();
        assert_eq!(proptest.kind, Kind::Development);
        assert_eq!(types.dependencies.iter().find(|d| d.name == "thiserror").unwrap().kind, Kind::Build);
    }
}
