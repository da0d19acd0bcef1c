//! A plug by `vc-qemu` next to the same by raw QMP.

use anyhow::Result;

use super::Options;
use crate::tools::{self, VM_PACKAGES, VSOCK_DAEMON};
use crate::workspace::Workspace;
use crate::{apt, guest, process};

/// Plugs and unplugs in two machines in turn.
pub(super) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    apt::install(&VM_PACKAGES)?;
    tools::ensure(workspace, VSOCK_DAEMON)?;
    // An agent would do other things, too, when a disk comes.
    let init = guest::example(workspace, "disk_news")?;
    let image =
        guest::build(workspace, &guest::Options::with_init(init, &workspace.target.join("guest-disk-news")))?;
    let mut command = workspace.cargo();
    command.args(["run", "--locked", "--release", "--package=vc-qemu", "--example=plug", "--"]);
    command.arg(image).arg(options.rounds.unwrap_or(20).to_string()).arg(&options.accelerator);
    process::show(&mut command)
}
