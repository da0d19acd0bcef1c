//! The nested host: a machine under emulation that can do what a user's host can do.
//!
//! QEMU's emulation of the processor has AMD's virtualization with nested paging, so that `kvm_amd` loads and machines run
//! in it with `accel=kvm`; the emulated IOMMU is Intel's, the one for which Debian's cloud kernel has a driver.

mod machine;
mod share;

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::plan::Plan;
use crate::guest::{self, HostImage};
use crate::test::Count;
use crate::workspace::Workspace;
use share::Share;

/// Modules of Debian's cloud kernel that the nested host loads; what is not here is built in or not needed.
const MODULES: [&str; 20] = [
    // Its own devices and files.
    "virtio_pci",
    "virtio_console",
    "fuse",
    "virtiofs",
    "overlay",
    // Machines.
    "kvm_amd",
    "vhost_vsock",
    "vhost_net",
    "tun",
    "veth",
    "bridge",
    // Devices to pass on.
    "vfio_pci",
    "vfio_iommu_type1",
    // Layers and disks.
    "loop",
    "erofs",
    "squashfs",
    "dm_mod",
    "dm_thin_pool",
    "dm_verity",
    "dm_crypt",
];

/// Runs the plan in a nested host.
pub(super) fn run(workspace: &Workspace, plan: &Plan) -> Result<Count> {
    let directory = tempfile::tempdir_in(&workspace.target).context("cannot make a temporary directory")?;
    let file = directory.path().join("plan.json");
    plan.write(&file)?;
    let this = std::env::current_exe().context("cannot find this program")?;
    let command =
        [this.as_path(), Path::new("integration"), Path::new("--inside"), &file].map(quoted).join(" ");
    let files = [("init", include_str!("nested/init").as_bytes()), ("command", command.as_bytes())];
    let image = HostImage { modules: &MODULES, directories: &["bin", "host", "layer"], files: &files };
    let image = guest::build_host(workspace, &image, directory.path())?;

    let share = Share::start(workspace, directory.path())?;
    println!("nested host: booting under emulation, which takes a quarter of a minute");
    let count = machine::run(&image, &share, directory.path())?;
    let count = count.context("the nested host ended before its tests did")?;
    ensure!(count.passed > 0 || count.failed > 0, "no test ran in the nested host; all were skipped");
    Ok(count)
}

/// Quoted for the shell of the nested host.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_quote_survives_the_shell() {
        let text = format!("printf %s {}", quoted(Path::new("/a b/it's")));
        let output = crate::process::text(std::process::Command::new("sh").args(["-c", &text])).unwrap();
        assert_eq!(output, "/a b/it's");
    }
}
