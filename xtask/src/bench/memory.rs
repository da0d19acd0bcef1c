//! The resident memory of the process that owns a container: after its start, and after many processes were executed
//! in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Options;
use crate::layers;
use crate::process;
use crate::workspace::Workspace;

/// How many processes are executed before the growth is measured from: the first ones fill caches.
const WARM: usize = 50;

/// Measures, and prints the figures.
pub(super) fn measure(workspace: &Workspace, vc: &Path, options: &Options) -> Result<()> {
    let directory = tempfile::tempdir_in(&workspace.target).context("cannot make a temporary directory")?;
    // Ended before the directory that it works in.
    let owned = Owned::create(workspace, vc, directory.path(), &options.accelerator)?;
    let rounds = options.rounds.unwrap_or(1000).max(WARM + 1);
    println!("{}", Memory::HEAD);
    owned.memory()?.print("created and started");
    let mut warm = None;
    for round in 1..=rounds {
        owned.exec(workspace)?;
        if round == WARM {
            let memory = owned.memory()?;
            memory.print(&format!("after {round} processes"));
            warm = Some(memory);
        }
    }
    let memory = owned.memory()?;
    memory.print(&format!("after {rounds} processes"));
    let growth = warm.map(|warm| memory.resident as f64 / warm.resident as f64);
    println!("growth since {WARM} processes: {:.3}x", growth.unwrap_or_default());
    Ok(())
}

/// A container and its owner, ended when this is dropped.
struct Owned {
    vc: PathBuf,
    root: PathBuf,
    mount: PathBuf,
    pid: u32,
}

impl Owned {
    fn create(workspace: &Workspace, vc: &Path, directory: &Path, accelerator: &str) -> Result<Self> {
        let layer = layers::make_base(directory)?;
        let bundle = directory.join("bundle");
        let mut owned =
            Self { vc: vc.into(), root: directory.join("state"), mount: bundle.join("rootfs"), pid: 0 };
        fs::create_dir_all(&owned.mount)?;
        let mut mount = std::process::Command::new("mount");
        process::output(mount.args(["-t", "erofs", "-o", "ro,loop"]).arg(&layer.image).arg(&owned.mount))
            .context("the container's root file system must be mounted, which only root may")?;
        fs::write(bundle.join("config.json"), config()?)?;
        let mut create = owned.command(workspace);
        create.args(["create", "--accel", accelerator, "--bundle"]).arg(&bundle).arg("bench");
        // The container's streams are the creator's.
        create.stdin(Stdio::null()).stdout(Stdio::null());
        process::show(&mut create)?;
        process::show(owned.command(workspace).args(["start", "bench"]))?;
        let state = process::output(owned.command(workspace).args(["state", "bench"]))?;
        let state: Value = serde_json::from_slice(&state).context("vc state wrote no JSON")?;
        let pid = state["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        owned.pid = pid.context("vc state has no pid")?;
        Ok(owned)
    }

    fn command(&self, workspace: &Workspace) -> std::process::Command {
        let mut command = workspace.vc(&self.vc);
        command.arg("--root").arg(&self.root);
        command
    }

    fn exec(&self, workspace: &Workspace) -> Result<()> {
        let output = process::output(self.command(workspace).args(["exec", "bench", "echo", "done"]))?;
        ensure!(output == b"done\n", "vc exec gave {output:?}");
        Ok(())
    }

    fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/smaps_rollup", self.pid);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Memory::parse(&text).with_context(|| format!("{path} lacks a figure"))
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let mut delete = std::process::Command::new(&self.vc);
        delete.arg("--root").arg(&self.root).args(["delete", "--force", "bench"]);
        let mut unmount = std::process::Command::new("umount");
        for command in [&mut delete, unmount.arg(&self.mount)] {
            if let Err(error) = process::output(command) {
                println!("{error:#}");
            }
        }
    }
}

/// The specification of a container that waits.
fn config() -> Result<Vec<u8>> {
    let config = json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs", "readonly": true},
        "process": {"args": ["sleep", "86400"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "ipc"},
            {"type": "network"}]},
    });
    Ok(serde_json::to_vec(&config)?)
}

/// What a process occupies, in KiB (the kernel's Documentation/ABI/testing/procfs-smaps_rollup).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    resident: u64,
    proportional: u64,
    private: u64,
    anonymous: u64,
}

impl Memory {
    const HEAD: &'static str =
        "KiB of the owner                 resident  shared in part  its own alone  of which not of files";

    fn parse(rollup: &str) -> Option<Self> {
        let figure = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        };
        Some(Self {
            resident: figure("Rss")?,
            proportional: figure("Pss")?,
            private: figure("Private_Clean")? + figure("Private_Dirty")?,
            anonymous: figure("Anonymous")?,
        })
    }

    fn print(&self, when: &str) {
        let Self { resident, proportional, private, anonymous } = self;
        println!("{when:<30} {resident:>10} {proportional:>15} {private:>14} {anonymous:>22}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read() {
        // Linux 6.18.
        let rollup = "55d4c0000000-7ffd2b5d2000 ---p 00000000 00:00 0                          [rollup]\n\
            Rss:                3184 kB\nPss:                 851 kB\nPss_Dirty:           412 kB\n\
            Private_Clean:       108 kB\nPrivate_Dirty:       412 kB\nAnonymous:           412 kB\n";
        let memory = Memory { resident: 3184, proportional: 851, private: 520, anonymous: 412 };
        assert_eq!(Memory::parse(rollup), Some(memory));
    }
}
