//! What the agent and its executor say to each other.
//!
//! The agent asks the executor for a worker with one message on a Unix socket: a byte, and descriptors.
//! Everything else goes over a socket of the worker's own, as lines of JSON.

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, LinuxSeccomp, PosixRlimit, Process};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where libcontainer keeps its state, one directory per container.
pub(crate) const STATE: &str = "/run/vc/state";

/// What a worker is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Create the container whose `config.json` is in `bundle`, with these limits for its first process.
    Create { id: String, bundle: PathBuf, rlimits: Vec<PosixRlimit>, console: Option<PathBuf> },
    /// Start one more process in a container.
    Exec(Box<ExecTask>),
    /// Make a pid namespace with an init of its own.
    PidNamespace,
    /// Make a user namespace, and a process in it.
    UserNamespace(IdMappings),
}

/// A process to be started in the container whose first process came with the request as a pidfd.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ExecTask {
    pub(crate) process: Process,
    pub(crate) joining: Joining,
    /// The socket that gets the terminal.
    pub(crate) console: Option<PathBuf>,
}

/// The ids of a user namespace.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct IdMappings {
    pub(crate) users: Vec<LinuxIdMapping>,
    pub(crate) groups: Vec<LinuxIdMapping>,
}

/// What every process of a container has in common with the first one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Joining {
    /// The namespaces that are not those of the agent.
    pub(crate) namespaces: Vec<LinuxNamespaceType>,
    pub(crate) seccomp: Option<LinuxSeccomp>,
    /// The directory of the cgroup.
    pub(crate) cgroup: PathBuf,
}

/// A worker's only answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The process that was made.
    Started { pid: i32 },
    /// Why there is none.
    Failed(Failure),
}

/// Why a process cannot be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Failure {
    /// The command is nowhere in the container.
    #[error("{0:?} is not in the container")]
    NotFound(String),
    /// The command is there; the program that it names to run it is not.
    #[error("{0:?} cannot run: its interpreter is not in the container")]
    NoInterpreter(String),
    /// The command is there, but is no program that the user may run.
    #[error("{0:?} cannot be executed: {1}")]
    NotExecutable(String, String),
    /// The container's limit of processes is reached.
    #[error("the container has as many processes as its limit allows")]
    TooManyProcesses,
    /// The container's first process is gone, and its namespaces with it.
    #[error("the container's first process has ended")]
    Gone,
    /// Anything else.
    #[error("the container executor failed: {0}")]
    Other(String),
}

impl Failure {
    /// A system call that failed while `doing` something.
    pub(super) fn step(doing: &'static str) -> impl Fn(nix::errno::Errno) -> Self {
        move |errno| Self::Other(format!("cannot {doing}: {}", errno.desc()))
    }
}

/// libcontainer's directory of the container `id`.
pub(crate) fn state_directory(id: &str) -> PathBuf {
    Path::new(STATE).join(id)
}
