//! `vc run`, timed from outside.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::workspace::Workspace;

/// When something was reached, counted from the exec of `vc`.
#[derive(Debug)]
pub(super) struct Run {
    /// The first byte that the container wrote.
    pub(super) output: Duration,
    /// The end of `vc`, when nothing is left.
    pub(super) end: Duration,
    /// What `vc` itself says about its phases.
    pub(super) timeline: String,
}

/// Runs a container from `layer` that writes one line.
pub(super) fn run(workspace: &Workspace, vc: &Path, layer: &Path, accelerator: &str) -> Result<Run> {
    let mut command = workspace.vc(vc);
    command
        .args(["run", "--timeline", "--accel", accelerator, "--layer"])
        .arg(layer)
        .args(["--", "echo", "ready"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", process::line(&command)))?;
    let mut first = [0];
    let read = child.stdout.take().context("no pipe")?.read(&mut first).context("cannot read the output")?;
    let output = started.elapsed();
    // What is left of both streams is a few lines, less than a pipe holds.
    let result = child.wait_with_output().context("cannot wait for vc")?;
    let end = started.elapsed();
    let timeline = String::from_utf8_lossy(&result.stderr).into_owned();
    ensure!(
        result.status.success() && read == 1,
        "`{}` failed: {}\n{timeline}",
        process::line(&command),
        result.status
    );
    Ok(Run { output, end, timeline })
}
