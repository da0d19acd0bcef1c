//! `cargo xtask soak`: what the tests do a few times, many times over, to find what is lost by and by.

use anyhow::{Result, ensure};

use crate::tools::{self, TEST_PACKAGES, VM_PACKAGES, VSOCK_DAEMON};
use crate::workspace::Workspace;
use crate::{apt, guest, process};

/// Launches and ends so many machines in a row, kills the owner of a busy sandbox as often, has five times as
/// many containers come and go in one machine, and compares fifty times as many random sequences of operations
/// with the model, and has Podman run a sixth as many containers in a row, and eight at once. Fails when something is left, lost or otherwise than it should be.
pub(crate) fn run(launches: u32) -> Result<()> {
    ensure!(launches > 5, "the first 5 launches are only the measure for the others; ask for more");
    let workspace = Workspace::load()?;
    apt::install(&VM_PACKAGES)?;
    apt::install(&TEST_PACKAGES)?;
    tools::ensure(&workspace, VSOCK_DAEMON)?;
    guest::build(&workspace, &guest::Options::default())?;
    let soak = |package: &str, program: &str, test: &str, times: u32| {
        let mut command = workspace.cargo();
        command.args([
            "test",
            "--locked",
            "--package",
            package,
            "--test",
            program,
            "--",
            "--nocapture",
            test,
        ]);
        process::show(command.env("VC_SOAK", times.to_string()).env("VC_TEST_VM", "required"))
    };
    soak("vc-qemu", "vm_soak", "launches_in_a_row", launches)?;
    soak("vc-container", "vm_recover", "killed_at_any_moment", launches)?;
    soak("vc-container", "vm_soak", "containers_in_a_row", launches.saturating_mul(5))?;
    soak("vc-cli", "vm_podman", "many_containers", launches.div_ceil(6))?;
    soak("vc-container", "life", "any_sequence_of_operations", launches.saturating_mul(50))
}
