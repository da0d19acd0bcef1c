//! A shared directory as containers have it, next to the same virtiofsd started by hand.

use anyhow::Result;

use super::Options;
use crate::tools::{self, VM_PACKAGES, VSOCK_DAEMON};
use crate::workspace::Workspace;
use crate::{apt, guest, process};

/// Measures reading and writing, in one machine.
pub(super) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    apt::install(&VM_PACKAGES)?;
    tools::ensure(workspace, VSOCK_DAEMON)?;
    guest::build(workspace, &guest::Options::default())?;
    let mut command = workspace.cargo();
    command.args(["run", "--locked", "--release", "--package=vc-container", "--example=virtiofs", "--"]);
    command.args(["--accel", &options.accelerator]);
    if let Some(rounds) = options.rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    process::show(&mut command)
}
