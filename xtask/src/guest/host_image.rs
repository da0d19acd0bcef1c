//! The image of a nested host: the kernel of the guest image, other modules, and busybox under a script as `/init`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use vc_image::{Archive, KernelSource, ModuleSet, Wanted, is_static};

use crate::process;
use crate::workspace::Workspace;

/// What the initrd has.
#[derive(Debug)]
pub(crate) struct HostImage<'a> {
    /// Loaded by the init script, which finds their order in `/lib/modules/modules.boot`.
    pub(crate) modules: &'a [&'a str],
    /// Directories on the root.
    pub(crate) directories: &'a [&'a str],
    /// Files on the root, all of them executable.
    pub(crate) files: &'a [(&'a str, &'a [u8])],
}

/// Writes `vmlinux` and `initrd` into `directory`; returns it.
pub(crate) fn build_host(workspace: &Workspace, image: &HostImage<'_>, directory: &Path) -> Result<PathBuf> {
    let wanted = Wanted { boot: image.modules, on_demand: &[] };
    let kernel = KernelSource::Package(super::fetch_kernel(workspace, false)?).read(&wanted)?;
    let write = |name: &str, data: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, data).with_context(|| format!("cannot write {}", path.display()))
    };
    write("vmlinux", &kernel.vmlinux)?;
    write("initrd", &pack(image, &kernel.modules)?)?;
    Ok(directory.to_owned())
}

fn pack(image: &HostImage<'_>, modules: &ModuleSet) -> Result<Vec<u8>> {
    let busybox = process::find("busybox").context("there is no busybox; install busybox-static")?;
    let busybox = fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    ensure!(is_static(&busybox)?, "busybox is not static; install busybox-static");
    let mut archive = Archive::default();
    for directory in ["dev", "lib", "lib/modules", "proc", "sys"].iter().chain(image.directories) {
        archive.directory(directory)?;
    }
    archive.device("dev/console", 0o600, (5, 1))?;
    archive.device("dev/null", 0o666, (1, 3))?;
    archive.file("bin/busybox", 0o755, &busybox)?;
    for (name, data) in image.files {
        archive.file(name, 0o755, data)?;
    }
    archive.file("lib/modules/modules.boot", 0o644, modules.boot_list().as_bytes())?;
    for module in &modules.modules {
        archive.file(&format!("lib/modules/{}.ko", module.name), 0o644, &module.data)?;
    }
    Ok(archive.finish())
}
