//! Where the kernel comes from: Debian's package, our own build of Debian's source, or files of the user's own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::modules::{GUEST, ModuleSet};
use super::small::{self, SmallKernel};
use super::{KernelChoice, Options, package, vmlinux};
use crate::workspace::Workspace;

/// Where to take the kernel from.
#[derive(Debug)]
pub(super) enum Source {
    /// A `.deb` that `package::fetch` brought.
    Package(PathBuf),
    /// What `small::build` made.
    Small(SmallKernel),
    /// The user's kernel (vmlinux or bzImage) and, if it has any, the tree of its modules.
    Files { kernel: PathBuf, modules: Option<PathBuf> },
}

/// The kernel, uncompressed, with its modules.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) release: String,
    pub(super) vmlinux: Vec<u8>,
    pub(super) modules: ModuleSet,
    /// Where it came from, for the manifest.
    pub(super) origin: Value,
}

impl Source {
    /// Decides by the options; downloads the package if it is not there yet.
    pub(super) fn find(workspace: &Workspace, options: &Options) -> Result<Self> {
        Ok(match &options.kernel {
            KernelChoice::File(kernel) => {
                Self::Files { kernel: kernel.clone(), modules: options.modules.clone() }
            }
            KernelChoice::Small => Self::Small(small::build(workspace, options.update)?),
            KernelChoice::Distribution => {
                let cache = workspace.target.join("kernel-package");
                Self::Package(package::fetch(&package::IMAGE, &cache, options.update)?)
            }
        })
    }

    /// What decides about the kernel: a change of one of these files means another kernel.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Package(package) => vec![package.clone()],
            Self::Small(kernel) => vec![kernel.vmlinux.clone()],
            // `make modules_install` rewrites this list each time.
            Self::Files { kernel, modules } => {
                let list = modules.iter().map(|tree| tree.join("modules.builtin"));
                std::iter::once(kernel.clone()).chain(list).collect()
            }
        }
    }

    /// Reads the kernel and its modules.
    pub(super) fn read(&self) -> Result<Kernel> {
        match self {
            Self::Package(package) => read_package(package),
            Self::Small(kernel) => read_files(&kernel.vmlinux, Some(&kernel.modules), kernel.origin.clone()),
            Self::Files { kernel, modules } => {
                let name = kernel.file_name().unwrap_or_default().to_string_lossy();
                read_files(kernel, modules.as_deref(), json!({ "file": name }))
            }
        }
    }
}

fn read_package(package: &Path) -> Result<Kernel> {
    let field = |name| package::field(package, name);
    let origin = json!({
        "package": field("Package")?,
        "version": field("Version")?,
        "source": field("Source")?,
        "sha256": super::output::sha256(&read(package)?),
    });
    let unpacked = TempDir::with_prefix("vc-kernel-").context("cannot make a temporary directory")?;
    let (kernel, modules) = package::unpack(package, unpacked.path())?;
    read_files(&kernel, Some(&modules), origin)
}

fn read_files(kernel: &Path, modules: Option<&Path>, origin: Value) -> Result<Kernel> {
    let vmlinux = vmlinux::extract(read(kernel)?)
        .with_context(|| format!("cannot use the kernel {}", kernel.display()))?;
    let release = vmlinux::release(&vmlinux)?;
    let modules =
        modules.map(|tree| ModuleSet::collect(tree, &release, &GUEST)).transpose()?.unwrap_or_default();
    Ok(Kernel { release, vmlinux, modules, origin })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
