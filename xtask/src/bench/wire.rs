//! The way to a container: exec, standard output and calls, each next to what is behind it.

use anyhow::Result;

use super::Options;
use crate::tools::{self, VM_PACKAGES, VSOCK_DAEMON};
use crate::workspace::Workspace;
use crate::{apt, guest, process};

/// Measures what `options` name, in one machine.
pub(super) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    apt::install(&VM_PACKAGES)?;
    tools::ensure(workspace, VSOCK_DAEMON)?;
    guest::build(workspace, &guest::Options::default())?;
    let source = guest::example(workspace, "byte_source")?;
    let mut command = workspace.cargo();
    command.args(["run", "--locked", "--release", "--package=vc-container", "--example=wire", "--"]);
    command.arg(source).args(["--accel", &options.accelerator]).args(&options.wire);
    if let Some(rounds) = options.rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    process::show(&mut command)
}
