//! Where the guest's kernel and initial RAM disk are.

use std::path::{Path, PathBuf};

use vc_types::HostPath;

use crate::cli::Machine;
use crate::failure::Failure;

/// Kernel and initial RAM disk.
pub(crate) struct GuestImage {
    pub(crate) kernel: HostPath,
    pub(crate) initrd: HostPath,
}

impl GuestImage {
    /// What the options say; for what they leave open, the image that `cargo xtask guest` builds beside
    /// the directory of this program.
    pub(crate) fn locate(options: &Machine) -> Result<Self, Failure> {
        let dir = match &options.guest {
            Some(dir) => dir.clone(),
            None => beside_this_program()?,
        };
        let file = |given: &Option<PathBuf>, name| match given {
            Some(path) => absolute(path),
            None => absolute(&dir.join(name)),
        };
        Ok(Self { kernel: file(&options.kernel, "vmlinux")?, initrd: file(&options.initrd, "initrd")? })
    }
}

fn beside_this_program() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::step("find vc's own program", error))?;
    let dir = program.ancestors().nth(2).unwrap_or(Path::new("/"));
    Ok(dir.join("guest"))
}

fn absolute(path: &Path) -> Result<HostPath, Failure> {
    let step = || format!("use the path {}", path.display());
    let absolute = std::path::absolute(path).map_err(|error| Failure::step(step(), error))?;
    // `..` is only ambiguous where links are; the file system knows.
    let plain = absolute.canonicalize().unwrap_or(absolute);
    HostPath::new(plain).map_err(|error| Failure::step(step(), error))
}
