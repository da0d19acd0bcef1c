//! Specifications of containers of busybox.

use oci_spec::runtime::{Spec, SpecBuilder};

/// A container that runs `script` in its shell, as root and without a terminal.
///
/// # Panics
/// Never: nothing that a specification needs is missing.
pub fn shell(script: &str) -> Spec {
    let mut spec = SpecBuilder::default().build().expect("the defaults are a specification");
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(["sh", "-c", script].map(str::to_owned).into()));
    process.set_env(Some(vec!["PATH=/bin".to_owned()]));
    process.set_terminal(None);
    spec.set_process(Some(process));
    spec
}
