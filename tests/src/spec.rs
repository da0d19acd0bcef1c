//! Specifications of containers of busybox, and of processes in them.

use oci_spec::runtime::{Process, Spec, SpecBuilder};

/// A container that runs `script` in its shell, as root and without a terminal.
///
/// # Panics
/// Never: nothing that a specification needs is missing.
pub fn shell(script: &str) -> Spec {
    let mut spec = SpecBuilder::default().build().expect("the defaults are a specification");
    spec.set_process(Some(shell_process(script)));
    spec
}

/// A process that runs `script` in a container's shell.
pub fn shell_process(script: &str) -> Process {
    let mut process = Process::default();
    process.set_args(Some(["sh", "-c", script].map(str::to_owned).into()));
    process.set_env(Some(vec!["PATH=/bin".to_owned()]));
    process.set_terminal(None);
    process
}
