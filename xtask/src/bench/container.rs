//! `vc run`, timed by its own timeline.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::workspace::Workspace;

/// When something was reached, counted from the exec of QEMU.
#[derive(Debug)]
pub(super) struct Run {
    /// The agent greeted the console.
    pub(super) init: Duration,
    /// The agent answered `vc`.
    pub(super) answer: Duration,
    /// How long it took to plug the layers.
    pub(super) plug: Duration,
    /// How long the agent took to create the container, mounts included.
    pub(super) create: Duration,
    /// `vc` got the first byte that the container wrote.
    pub(super) output: Duration,
    /// The end of `vc`, when nothing is left.
    pub(super) end: Duration,
    /// What `vc` itself says about its phases.
    pub(super) timeline: String,
}

/// Runs a container from `layers`, the topmost first, that writes one line, in a guest from `image`.
pub(super) fn run(
    workspace: &Workspace,
    vc: &Path,
    image: &Path,
    layers: &[PathBuf],
    accelerator: &str,
) -> Result<Run> {
    let mut command = workspace.vc(vc);
    command.env("VC_GUEST", image).args(["run", "--timeline", "--accel", accelerator]);
    for layer in layers {
        command.arg("--layer").arg(layer);
    }
    command.args(["--", "echo", "ready"]);
    command.stdin(Stdio::null());
    let result = command.output().with_context(|| format!("cannot run `{}`", process::line(&command)))?;
    let timeline = String::from_utf8_lossy(&result.stderr).into_owned();
    ensure!(result.status.success(), "`{}` failed: {}\n{timeline}", process::line(&command), result.status);
    read(timeline).context("vc's timeline lacks a phase")
}

fn read(timeline: String) -> Option<Run> {
    let exec = row(&timeline, "exec qemu")?.0;
    let (boot, took) = row(&timeline, "boot")?;
    let took_by = |phase| Duration::try_from_secs_f64(row(&timeline, phase)?.1? / 1000.0).ok();
    let since = |at: f64| Duration::try_from_secs_f64((at - exec) / 1000.0).ok();
    Some(Run {
        init: since(row(&timeline, "guest console")?.0)?,
        answer: since(boot + took?)?,
        plug: took_by("plug layers")?,
        create: took_by("create container")?,
        output: since(row(&timeline, "first output")?.0)?,
        end: since(row(&timeline, "end")?.0)?,
        timeline,
    })
}

/// When a phase began, in milliseconds since the start of `vc`, and how long it took.
pub(super) fn row(timeline: &str, phase: &str) -> Option<(f64, Option<f64>)> {
    let line = timeline.lines().find(|line| line.starts_with(phase))?;
    let mut figures = line[phase.len()..].split_whitespace().map(|figure| figure.parse().ok());
    Some((figures.next()??, figures.next().flatten()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_is_read_from_the_exec_of_qemu_on() {
        let timeline = "phase                    at ms   took ms\nlaunch                     0.8      97.9\n\
            exec qemu                 18.5          \nboot                      98.7    1441.2\n\
            guest console           1381.1          \nplug layers             1600.0      20.5\n\
            create container        1620.5      30.0\nfirst output            1900.5          \n\
            end                     2058.5\n";
        let run = read(timeline.to_owned()).unwrap();
        let ms = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
        assert_eq!(
            [ms(run.init), ms(run.answer), ms(run.output), ms(run.end)],
            [1362.6, 1521.4, 1882.0, 2040.0]
        );
        assert_eq!([ms(run.plug), ms(run.create)], [20.5, 30.0]);
        assert!(read(timeline.replace("first output", "other")).is_none());
    }
}
