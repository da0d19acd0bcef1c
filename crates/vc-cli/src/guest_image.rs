//! Where the guest's kernel and initial RAM disk are.

mod build;

use std::path::{Path, PathBuf};

use vc_types::HostPath;

use crate::config::{Config, Origin};
use crate::failure::Failure;
pub(crate) use build::build;

/// Kernel and initial RAM disk.
pub(crate) struct GuestImage {
    pub(crate) kernel: HostPath,
    pub(crate) initrd: HostPath,
}

/// Where a guest image is installed, besides the directory `guest` beside that of `vc`.
const PLACES: [&str; 2] = ["/usr/local/share/vc", "/usr/share/vc"];

const GUEST: &str = "hypervisor.qemu.guest";
const KERNEL: &str = "hypervisor.qemu.kernel";
const INITRD: &str = "hypervisor.qemu.initrd";

impl GuestImage {
    /// What the configuration says; for what it leaves open, the image that is installed, or that `cargo xtask guest`
    /// builds beside the directory of this program.
    pub(crate) fn locate(config: &Config) -> Result<Self, Failure> {
        let dir = directory(config)?;
        let file = |key, name| match config.text(key) {
            "" => absolute(&dir.join(name)),
            path => absolute(&named(config, key, path)?),
        };
        Ok(Self { kernel: file(KERNEL, "vmlinux")?, initrd: file(INITRD, "initrd")? })
    }
}

/// The directory of the image: what the configuration says, or where one is installed.
fn directory(config: &Config) -> Result<PathBuf, Failure> {
    match config.text(GUEST) {
        "" => installed(),
        dir => named(config, GUEST, dir),
    }
}

/// A path that is the same wherever `vc` runs, unless who runs it has said it.
fn named(config: &Config, key: &str, path: &str) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(path);
    let here = matches!(config.origin(key), Origin::Option(_) | Origin::Variable(_));
    if here || path.is_absolute() {
        return Ok(path);
    }
    Err(config.invalid(key, format!("the path {} should be absolute", path.display())))
}

/// The first place that has an image; if none has, the one that belongs to where this program is installed, or else the
/// one beside it.
fn installed() -> Result<PathBuf, Failure> {
    let prefix = beside_this_program()?;
    let (beside, shared) = (prefix.join("guest"), prefix.join("share/vc"));
    let places = std::iter::once(beside.clone()).chain(PLACES.map(PathBuf::from));
    let mut complete = places.filter(|dir| dir.join("vmlinux").exists() && dir.join("initrd").exists());
    let usual = if PLACES.map(Path::new).contains(&shared.as_path()) { shared } else { beside };
    Ok(complete.next().unwrap_or(usual))
}

/// A program by its name: from `PATH`, or else from where `cargo xtask test` installs programs, beside the directory of this
/// one. An engine gives a runtime a `PATH` of its own.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    if name.contains('/') || in_path {
        return name.into();
    }
    let installed = beside_this_program().map(|dir| dir.join("tools/bin").join(name));
    installed.ok().filter(|file| file.is_file()).unwrap_or_else(|| name.into())
}

/// The directory in which the one of this program is.
fn beside_this_program() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::step("find vc's own program", error))?;
    Ok(program.ancestors().nth(2).unwrap_or(Path::new("/")).to_owned())
}

fn absolute(path: &Path) -> Result<HostPath, Failure> {
    let step = || format!("use the path {}", path.display());
    let absolute = std::path::absolute(path).map_err(|error| Failure::step(step(), error))?;
    // `..` is only ambiguous where links are; the file system knows.
    let plain = absolute.canonicalize().unwrap_or(absolute);
    HostPath::new(plain).map_err(|error| Failure::step(step(), error))
}
