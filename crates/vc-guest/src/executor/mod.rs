//! The helper process that makes containers and their processes.
//!
//! Whoever enters namespaces must be alone: the kernel and libcontainer ask for a process with a single
//! thread. So the agent starts itself once more as an executor, which does nothing but copy itself;
//! each copy, a worker, does one task. Copying costs a fraction of starting a program of several
//! megabytes.
//!
//! ```text
//! agent (PID 1)          executor          worker                   container's process
//!   | descriptors ---------> |
//!   |                        | clone --------> |
//!   | <----------------- pid |                 |
//!   | watches the worker                       |
//!   | task ----------------------------------> |
//!   |                                          | clone ----------------> | namespaces, mounts, checks
//!   | <---------------------- {"pid": n} ----- | <------- ready -------- |
//!   | watches n                                |                         |
//!   | ------------------------------ done ---> | exits                   |
//!   | becomes the parent of n                                            | execve
//! ```
//!
//! A worker stays until the agent watches the new process: until then it is the parent, so that a
//! process that dies at once stays a zombie, and its status and its pid are not lost. An executor that
//! was killed is started again for the next task.

mod client;
mod command;
mod join;
mod launch;
mod namespace;
mod protocol;
mod server;
mod worker;
mod workload;

pub(crate) use launch::{LaunchError, Launcher, Spent};
pub(crate) use protocol::{ExecTask, Failure, IdMappings, Joining, Task, state_directory};
pub use server::run_helper;
