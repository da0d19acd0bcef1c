//! The nested host: a machine under emulation that can do what a user's host can do.
//!
//! QEMU's emulation of the processor has AMD's virtualization with nested paging, so that `kvm_amd` loads and machines run
//! in it with `accel=kvm`; the emulated IOMMU is Intel's, the one for which Debian's cloud kernel has a driver.

mod machine;
mod queue;
mod share;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, ensure};

use super::plan::Plan;
use super::report::Report;
use crate::guest::{self, HostImage};
use crate::workspace::Workspace;
use queue::Queue;
use share::Share;

/// The file with the tests of a host.
const PLAN: &str = "plan.json";

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

/// The most hosts at a time: each takes some 2 GiB of memory.
const MOST_HOSTS: usize = 4;

/// Runs the plan in nested hosts, one for each processor, which take its tests from one queue.
pub(super) fn run(workspace: &Workspace, plan: &Plan) -> Result<Report> {
    let (_lock, directory) = place(workspace)?;
    let daemon = &share::program(workspace)?;
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let number = processors.min(MOST_HOSTS).min(plan.tests.len());
    let mut hosts = Vec::new();
    for number in 1..=number {
        let directory = directory.join(format!("{number}"));
        fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        plan.write(&directory.join(PLAN), number == 1)?;
        let image = build(workspace, &directory)?;
        hosts.push(Host { name: format!("host {number}"), directory, image });
    }
    println!("nested hosts: booting {number} under emulation, for {} tests", plan.tests.len());
    let queue = &Queue::new(&plan.tests);
    thread::scope(|scope| {
        for host in &hosts {
            scope.spawn(move || {
                if let Err(error) = run_one(daemon, host, queue) {
                    println!("{}: {error:#}", host.name);
                }
            });
        }
    });
    Ok(queue.report())
}

/// A host to be.
struct Host {
    name: String,
    directory: PathBuf,
    image: PathBuf,
}

/// Runs tests in one host after another until none waits. Others go on without a host that does not come up.
fn run_one(daemon: &Path, host: &Host, queue: &Queue<'_>) -> Result<()> {
    let Host { name, directory, image } = host;
    while !queue.is_empty() {
        let share = Share::start(daemon, directory)?;
        if let Err(fault) = machine::run(image, &share, directory, (name, queue))? {
            println!("{name}: {fault}");
            ensure!(fault.is_up, "it does not come up");
        }
    }
    Ok(())
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

/// The kernel and the initial RAM disk of a host that runs the plan in its directory.
fn build(workspace: &Workspace, directory: &Path) -> Result<PathBuf> {
    let file = directory.join(PLAN);
    let this = std::env::current_exe().context("cannot find this program")?;
    let command =
        [this.as_path(), Path::new("integration"), Path::new("--inside"), &file].map(quoted).join(" ");
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
