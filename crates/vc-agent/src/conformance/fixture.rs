//! What the obligations need of whoever runs them.

use std::time::Duration;

use vc_types::{ContainerId, Deadline, SandboxId};

use crate::{CreateContainer, CreateSandbox};

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
}

impl Workload {
    /// Every workload.
    pub const ALL: [Self; 5] = [Self::Prints, Self::Copies, Self::Waits, Self::Missing, Self::NotExecutable];

    /// The arguments of the process, the command first.
    pub const fn args(self) -> &'static [&'static str] {
        match self {
            Self::Prints => &["sh", "-c", "printf out; printf err >&2; exit 7"],
            Self::Copies => &["cat"],
            Self::Waits => &["sleep", "1000000"],
            Self::Missing => &["vc-no-such-command"],
            Self::NotExecutable => &["/"],
        }
    }
}

/// Makes what the obligations ask the agent for.
pub trait Fixture: Sync {
    /// A sandbox that the agent can create.
    fn sandbox(&self) -> CreateSandbox;

    /// A container that the agent can create: of the id `id`, without a terminal, running `workload`.
    fn container(&self, id: &ContainerId, workload: Workload) -> CreateContainer;

    /// A deadline that only a defect misses.
    fn deadline(&self) -> Deadline {
        Deadline::after(Duration::from_secs(60))
    }
}

pub(super) fn container_id(text: &str) -> ContainerId {
    text.parse().expect("the suite's ids are ids")
}

pub(super) fn another(sandbox: &CreateSandbox) -> CreateSandbox {
    let id: SandboxId = "another".parse().expect("the suite's ids are ids");
    CreateSandbox { id, ..sandbox.clone() }
}
