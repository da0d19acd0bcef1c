//! The nested host: a machine under emulation that can do what a user's host can do.
//!
//! QEMU's emulation of the processor has AMD's virtualization with nested paging, so that `kvm_amd` loads and machines run
//! in it with `accel=kvm`; the emulated IOMMU is Intel's, the one for which Debian's cloud kernel has a driver.

mod machine;
mod share;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::plan::Plan;
use super::report::{Outcome, Report, title};
use crate::guest::{self, HostImage};
use crate::workspace::Workspace;
use machine::Run;
use share::Share;

/// Modules of Debian's cloud kernel that the nested host loads; what is not here is built in or not needed.
const MODULES: [&str; 22] = [
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
    "macvtap",
    // Devices to pass on.
    "vfio_pci",
    "vfio_iommu_type1",
    // Layers and disks.
    "loop",
    "erofs",
    "squashfs",
    "ext4",
    "dm_mod",
    "dm_thin_pool",
    "dm_verity",
    "dm_crypt",
];

/// Runs the plan in nested hosts. A test that takes its host along twice fails, and the next ones get another. Once says
/// nothing of the test: the host's own kernel gets stuck now and then (a soft lockup of the processor that QEMU's KVM
/// machine runs on, seen in one of two runs of the same tests under QEMU 7.2).
pub(super) fn run(workspace: &Workspace, plan: &Plan) -> Result<Report> {
    let (_lock, directory) = place(workspace)?;
    let file = directory.join("plan.json");
    let image = build(workspace, &directory, &file)?;
    let mut report = Report::default();
    let mut left = plan.tests.as_slice();
    let mut tried_with = None;
    while !left.is_empty() {
        plan.part(left, left.len() == plan.tests.len()).write(&file)?;
        println!("nested host: booting under emulation, for {} tests", left.len());
        let share = Share::start(workspace, &directory)?;
        let begun = Instant::now();
        let Run { outcomes, fault, is_up } = machine::run(&image, &share, &directory, left)?;
        let ended = outcomes.len();
        for (test, (outcome, took)) in left.iter().zip(outcomes) {
            report.add(test, outcome, took);
        }
        left = &left[ended..];
        if let (Some(fault), Some((test, others))) = (fault, left.split_first()) {
            println!("{fault}");
            ensure!(is_up || !report.is_empty(), "the nested host does not come up");
            if tried_with.replace(left.len()) != Some(left.len()) {
                println!(
                    "nested host: it ended, or stood still; {} is tried once more in another",
                    title(test)
                );
                continue;
            }
            let why = "the nested host ended twice, or stood still; its last words are above".to_owned();
            report.add(test, Outcome::Failed(why), begun.elapsed());
            left = others;
        }
    }
    Ok(report)
}

/// A directory for the machine's files, below the target directory and for one run at a time. It stays, so that nobody has
/// to clear up behind a run that was killed: the next one does.
fn place(workspace: &Workspace) -> Result<(File, PathBuf)> {
    let directory = workspace.target.join("nested-host");
    let path = workspace.target.join("nested-host.lock");
    let lock = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => fs::create_dir(&directory),
    }
    .with_context(|| format!("cannot clear {}", directory.display()))?;
    Ok((lock, directory))
}

/// The kernel and the initial RAM disk of a host that runs the plan in `file`.
fn build(workspace: &Workspace, directory: &Path, file: &Path) -> Result<PathBuf> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let command =
        [this.as_path(), Path::new("integration"), Path::new("--inside"), file].map(quoted).join(" ");
    let files = [("init", include_str!("nested/init").as_bytes()), ("command", command.as_bytes())];
    let image = HostImage { modules: &MODULES, directories: &["bin", "host", "layer"], files: &files };
    guest::build_host(workspace, &image, directory)
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
