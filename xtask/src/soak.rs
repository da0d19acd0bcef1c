//! `cargo xtask soak`: what the tests do a few times, many times over, to find what is lost by and by.

use anyhow::{Result, ensure};

use crate::tools::{self, VM_PACKAGES, VSOCK_DAEMON};
use crate::workspace::Workspace;
use crate::{apt, guest, process};

/// Launches and ends so many machines in a row; fails when one leaves something.
pub(crate) fn run(launches: u32) -> Result<()> {
    ensure!(launches > 5, "the first 5 launches are only the measure for the others; ask for more");
    let workspace = Workspace::load()?;
    apt::install(&VM_PACKAGES)?;
    tools::ensure(&workspace, VSOCK_DAEMON)?;
    guest::build(&workspace, &guest::Options::default())?;
    let mut command = workspace.cargo();
    command.args(["test", "--locked", "--package", "vc-qemu", "--test", "vm_soak", "--", "--nocapture"]);
    process::show(command.env("VC_SOAK", launches.to_string()).env("VC_TEST_VM", "required"))
}
