//! What the obligations need of whoever runs them.

use std::time::Duration;

use oci_spec::runtime::{LinuxMemoryBuilder, LinuxPids, LinuxResources, MountBuilder};
use vc_types::{ContainerId, Deadline, GuestPath, SandboxId};

use crate::{CreateContainer, CreateSandbox, ExecProcess};

/// What a container is to run. Any busybox has these commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Workload {
    /// Prints `out` and `err`, each to its stream, and ends with status 7.
    Prints,
    /// Copies its standard input to its standard output.
    Copies,
    /// Runs until it is ended, and reads nothing.
    Waits,
    /// A command that does not exist.
    Missing,
    /// A path that exists and is no program.
    NotExecutable,
    /// Prints the file that is bound to [`Workload::BOUND`].
    PrintsFile,
    /// Prints the clock in seconds since 1970, and a newline.
    PrintsTime,
    /// Waits for a line of input, and prints the rows and columns of its terminal.
    PrintsTerminalSize,
    /// Takes memory without end.
    Hogs,
}

impl Workload {
    /// Every workload.
    pub const ALL: [Self; 9] = [
        Self::Prints,
        Self::Copies,
        Self::Waits,
        Self::Missing,
        Self::NotExecutable,
        Self::PrintsFile,
        Self::PrintsTime,
        Self::PrintsTerminalSize,
        Self::Hogs,
    ];

    /// Where the suite binds a file of the guest into a container.
    pub const BOUND: &str = "/tmp/bound";

    /// The arguments of the process, the command first.
    pub const fn args(self) -> &'static [&'static str] {
        match self {
            Self::Prints => &["sh", "-c", "printf out; printf err >&2; exit 7"],
            Self::Copies => &["cat"],
            Self::Waits => &["sleep", "1000000"],
            Self::Missing => &["vc-no-such-command"],
            Self::NotExecutable => &["/"],
            Self::PrintsFile => &["cat", Self::BOUND],
            Self::PrintsTime => &["date", "+%s"],
            Self::PrintsTerminalSize => &["sh", "-c", "read line; stty size"],
            Self::Hogs => &["sh", "-c", "x=xxxxxxxx; while :; do x=$x$x; done"],
        }
    }
}

/// Makes what the obligations ask the agent for.
pub trait Fixture: Sync {
    /// A sandbox that the agent can create. The suite adds name servers.
    fn sandbox(&self) -> CreateSandbox;

    /// A container that the agent can create: of the id `id`, without a terminal, running `workload` as
    /// root. The suite adds mounts and limits.
    fn container(&self, id: &ContainerId, workload: Workload) -> CreateContainer;

    /// A deadline that only a defect misses.
    fn deadline(&self) -> Deadline {
        Deadline::after(Duration::from_secs(60))
    }
}

/// Another process for `container`, called `exec`, that runs `workload`.
pub(super) fn exec(
    fixture: &impl Fixture,
    container: &ContainerId,
    exec: &str,
    workload: Workload,
) -> ExecProcess {
    let spec = fixture.container(container, workload).spec;
    let process = spec.process().clone().expect("the fixture's containers have a process");
    ExecProcess {
        container: container.clone(),
        exec: exec.parse().expect("the suite's ids are ids"),
        process,
    }
}

/// Binds the file `source` of the guest into the container.
pub(super) fn bind(request: &mut CreateContainer, source: &GuestPath) {
    let mount = MountBuilder::default()
        .destination(Workload::BOUND)
        .typ("bind")
        .source(source.as_str())
        .options(["bind", "ro"].map(str::to_owned))
        .build();
    let mut mounts = request.spec.mounts().clone().unwrap_or_default();
    mounts.push(mount.expect("nothing is missing"));
    request.spec.set_mounts(Some(mounts));
}

/// Limits of `memory` bytes and `pids` processes.
pub(super) fn limits(memory: i64, pids: i64) -> LinuxResources {
    let mut limits = LinuxResources::default();
    limits.set_memory(Some(LinuxMemoryBuilder::default().limit(memory).build().expect("nothing is missing")));
    let mut number = LinuxPids::default();
    number.set_limit(pids);
    limits.set_devices(None).set_pids(Some(number));
    limits
}

/// Gives the container `limits` from its start.
pub(super) fn limit(request: &mut CreateContainer, limits: LinuxResources) {
    let mut linux = request.spec.linux().clone().unwrap_or_default();
    linux.set_resources(Some(limits));
    request.spec.set_linux(Some(linux));
}

pub(super) fn container_id(text: &str) -> ContainerId {
    text.parse().expect("the suite's ids are ids")
}

pub(super) fn another(sandbox: &CreateSandbox) -> CreateSandbox {
    let id: SandboxId = "another".parse().expect("the suite's ids are ids");
    CreateSandbox { id, ..sandbox.clone() }
}
