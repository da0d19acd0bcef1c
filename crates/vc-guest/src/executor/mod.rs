//! The helper process that runs libcontainer.
//!
//! libcontainer forks, which only a process with a single thread may do. So the agent starts itself
//! once more as an executor:
//!
//! ```text
//! agent (PID 1)          executor                     container's init
//!   | spawn --------------> |
//!   |                       | libcontainer: clone -------> | namespaces, mounts, checks
//!   | <----- {"pid": n} --- | <---------- ready ---------- |
//!   | watches n             |                              |
//!   | ------- done -------> | exits                        |
//!   | becomes the parent of n                              | waits for start, then execve
//! ```
//!
//! The executor stays until the agent watches the new process: until then it is the parent, so that a
//! process that dies at once stays a zombie, and its status and its pid are not lost.

mod helper;
mod launch;
mod protocol;
mod workload;

pub use helper::run_helper;
pub(crate) use launch::{LaunchError, Launcher};
pub(crate) use protocol::{Failure, Task, state_directory};
