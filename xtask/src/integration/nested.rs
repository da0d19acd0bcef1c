//! The nested host: a machine under emulation that can do what a user's host can do.
//!
//! QEMU's emulation of the processor has AMD's virtualization with nested paging, so that `kvm_amd` loads and machines run
//! in it with `accel=kvm`; the emulated IOMMU is Intel's, the one for which Debian's cloud kernel has a driver.

mod machine;
mod share;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};

use super::plan::{Plan, Test};
use super::report::{Outcome, Report, title};
use crate::guest::{self, HostImage};
use crate::workspace::Workspace;
use machine::Run;
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

/// Runs the plan in nested hosts, one for each processor.
pub(super) fn run(workspace: &Workspace, plan: &Plan) -> Result<Report> {
    let (_lock, directory) = place(workspace)?;
    let daemon = &share::program(workspace)?;
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let mut hosts = Vec::new();
    for (number, tests) in (1..).zip(deal(&plan.tests, processors.min(MOST_HOSTS))) {
        let directory = directory.join(format!("{number}"));
        fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let image = build(workspace, &directory)?;
        hosts.push(Host { name: format!("host {number}"), directory, image, tests });
    }
    println!("nested hosts: booting {} under emulation, for {} tests", hosts.len(), plan.tests.len());
    let mut report = Report::default();
    thread::scope(|scope| {
        let run = |host| scope.spawn(move || run_one(daemon, plan, host));
        let running: Vec<_> = hosts.iter().map(run).collect();
        running.into_iter().try_for_each(|host| {
            report.append(host.join().map_err(|_| anyhow!("what watches a nested host panicked"))??);
            Ok(())
        })
    })
    .map(|()| report)
}

/// A host to be, and what it runs.
struct Host {
    name: String,
    directory: PathBuf,
    image: PathBuf,
    tests: Vec<Test>,
}

/// Deals the tests out in turn: those that take long are next to each other.
fn deal(tests: &[Test], hosts: usize) -> Vec<Vec<Test>> {
    let hosts = hosts.min(tests.len());
    (0..hosts).map(|first| tests.iter().skip(first).step_by(hosts).cloned().collect()).collect()
}

/// Runs the tests of one host. A test that takes its host along twice fails, and the next ones get another. Once says nothing
/// of the test: the host's own kernel gets stuck now and then (a soft lockup of the processor that QEMU's KVM machine runs
/// on, seen in one of two runs of the same tests under QEMU 7.2, with two processors).
fn run_one(daemon: &Path, plan: &Plan, host: &Host) -> Result<Report> {
    let Host { name, directory, image, tests } = host;
    let mut report = Report::default();
    let mut left = tests.as_slice();
    let mut tried_with = None;
    while !left.is_empty() {
        plan.part(left).write(&directory.join(PLAN))?;
        let share = Share::start(daemon, directory)?;
        let begun = Instant::now();
        let Run { outcomes, fault, is_up } = machine::run(image, &share, directory, (name, left))?;
        let ended = outcomes.len();
        for (test, (outcome, took)) in left.iter().zip(outcomes) {
            report.add(test, outcome, took);
        }
        left = &left[ended..];
        if let (Some(fault), Some((test, others))) = (fault, left.split_first()) {
            println!("{name}: {fault}");
            ensure!(is_up || !report.is_empty(), "{name} does not come up");
            if tried_with.replace(left.len()) != Some(left.len()) {
                println!("{name}: it ended, or stood still; {} is tried once more in another", title(test));
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
    fn tests_are_dealt_out_in_turn_and_no_host_is_without() {
        let test = |name: &str| Test {
            suite: "a::vm".into(),
            name: name.into(),
            program: "".into(),
            directory: "".into(),
        };
        let tests = ["one", "two", "three"].map(test);
        let names = |hosts| -> Vec<Vec<String>> {
            let dealt = deal(&tests, hosts);
            dealt.into_iter().map(|tests| tests.into_iter().map(|test| test.name).collect()).collect()
        };
        assert_eq!(names(1), [vec!["one", "two", "three"]]);
        assert_eq!(names(2), [vec!["one", "three"], vec!["two"]]);
        assert_eq!(names(4), [["one"], ["two"], ["three"]]);
    }

    #[test]
    fn a_path_with_a_quote_survives_the_shell() {
        let text = format!("printf %s {}", quoted(Path::new("/a b/it's")));
        let output = crate::process::text(std::process::Command::new("sh").args(["-c", &text])).unwrap();
        assert_eq!(output, "/a b/it's");
    }
}
