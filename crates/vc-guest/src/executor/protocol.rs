//! What the agent and its executor say to each other.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where libcontainer keeps its state, one directory per container.
pub(crate) const STATE: &str = "/run/vc/state";

/// What the executor is to do; it is its command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Create the container whose `config.json` is in `bundle`.
    Create { id: String, bundle: PathBuf, console: Option<PathBuf> },
    /// Start the process described by the file `process` in the running container `id`.
    Exec { id: String, process: PathBuf, console: Option<PathBuf> },
    /// Make a pid namespace with an init of its own.
    PidNamespace,
}

/// The executor's only answer.
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
    /// Anything else.
    #[error("the container executor failed: {0}")]
    Other(String),
}

/// libcontainer's directory of the container `id`.
pub(crate) fn state_directory(id: &str) -> PathBuf {
    Path::new(STATE).join(id)
}
