//! Where the kernel comes from: Debian's package, or files.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::debian::{Package, PackageError};
use crate::file::{FileError, read};
use crate::modules::{ModuleSet, ModulesError, Wanted};
use crate::vmlinux::{self, VmlinuxError};

/// Where to take a kernel from.
#[derive(Debug)]
pub enum KernelSource {
    /// [`debian::KERNEL`](crate::debian::KERNEL), fetched.
    Package(Package),
    /// Files.
    Files {
        /// vmlinux or bzImage.
        kernel: PathBuf,
        /// The tree of its modules, as `make modules_install` writes it; without one, it has what it needs built in.
        modules: Option<PathBuf>,
        /// Where they come from, for the manifest.
        origin: Value,
    },
}

/// A kernel, uncompressed, with its modules.
#[derive(Debug)]
pub struct Kernel {
    /// What it calls itself, such as `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// The ELF file.
    pub vmlinux: Vec<u8>,
    /// Those that were wanted.
    pub modules: ModuleSet,
    /// Where it comes from, for the manifest.
    pub origin: Value,
}

/// A kernel cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// It cannot be used.
    #[error("could not use the kernel {}", path.display())]
    Vmlinux {
        /// The kernel.
        path: PathBuf,
        /// Why not.
        source: VmlinuxError,
    },
    /// Its modules cannot be had.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// Its package cannot be unpacked.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The system refused something.
    #[error(transparent)]
    File(#[from] FileError),
}

impl KernelSource {
    /// A kernel, and the modules of it if it has any, that nothing is known about but where they are.
    pub fn files(kernel: PathBuf, modules: Option<PathBuf>) -> Self {
        let origin = json!({ "file": kernel.file_name().unwrap_or_default().to_string_lossy() });
        Self::Files { kernel, modules, origin }
    }

    /// Reads the kernel and the modules that are wanted.
    ///
    /// # Errors
    /// For what is no kernel that QEMU can enter by PVH, for modules that are missing or another kernel's, and for what
    /// cannot be read.
    pub fn read(&self, wanted: &Wanted<'_>) -> Result<Kernel, KernelError> {
        match self {
            Self::Package(package) => {
                let unpacked = package.unpack()?;
                read_files(&unpacked.kernel, Some(&unpacked.modules), package.origin()?, wanted)
            }
            Self::Files { kernel, modules, origin } => {
                read_files(kernel, modules.as_deref(), origin.clone(), wanted)
            }
        }
    }

    /// What decides about the kernel: a change of one of these files means another kernel.
    pub(crate) fn inputs(&self) -> Vec<PathBuf> {
        match self {
            Self::Package(package) => vec![package.path().to_owned()],
            // `make modules_install` rewrites this list each time.
            Self::Files { kernel, modules, .. } => {
                let list = modules.iter().map(|tree| tree.join("modules.builtin"));
                std::iter::once(kernel.clone()).chain(list).collect()
            }
        }
    }
}

fn read_files(
    path: &Path,
    modules: Option<&Path>,
    origin: Value,
    wanted: &Wanted<'_>,
) -> Result<Kernel, KernelError> {
    let kernel = read(path)?;
    let about = |source| KernelError::Vmlinux { path: path.to_owned(), source };
    let vmlinux = vmlinux::extract(kernel).map_err(about)?;
    let release = vmlinux::release(&vmlinux).map_err(about)?;
    let modules =
        modules.map(|tree| ModuleSet::collect(tree, &release, wanted)).transpose()?.unwrap_or_default();
    Ok(Kernel { release, vmlinux, modules, origin })
}
