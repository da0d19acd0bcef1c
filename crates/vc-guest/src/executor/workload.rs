//! The last steps of a container's first process, as libcontainer calls them within the container.

use super::command::{become_program, command};
use super::protocol::Failure;
use libcontainer::oci_spec::runtime::{Process, Spec};
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use std::io::{PipeWriter, Write};
use std::sync::Arc;

/// Runs within the container, as its user, with its mounts, in its working directory; so what it
/// finds is what execve(2) will find.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    /// Says to the worker what went wrong, as a value and not as a text.
    pub(super) report: Arc<PipeWriter>,
}

impl Executor for Workload {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        command(process(spec)).map(drop).map_err(|failure| {
            self.tell(&failure);
            ExecutorValidationError::ArgValidationError(failure.to_string())
        })
    }

    /// Never returns. When execve(2) fails the exit code is that of a shell: 127 for a command that
    /// is not there, 126 for one that cannot be executed (POSIX, Shell Command Language, 2.8.2).
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = process(spec);
        let failure = match command(process) {
            Ok(path) => become_program(&path, process, environment()),
            Err(failure) => failure,
        };
        let _ = writeln!(std::io::stderr(), "vc: {failure}");
        let is_absent = matches!(failure, Failure::NotFound(_) | Failure::NoInterpreter(_));
        std::process::exit(if is_absent { 127 } else { 126 })
    }
}

impl Workload {
    fn tell(&self, failure: &Failure) {
        let text = serde_json::to_vec(failure).expect("a failure is plain data");
        let _ = (&*self.report).write_all(&text);
    }
}

fn process(spec: &Spec) -> &Process {
    spec.process().as_ref().expect("the agent refuses a specification without a process")
}

/// What libcontainer made of the specification's environment.
fn environment() -> Vec<std::ffi::OsString> {
    let join = |(mut name, value): (std::ffi::OsString, std::ffi::OsString)| {
        name.push("=");
        name.push(value);
        name
    };
    std::env::vars_os().map(join).collect()
}
