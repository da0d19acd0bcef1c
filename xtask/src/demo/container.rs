//! The demo's container: what it is told to do, and whether it did that.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process;
use crate::workspace::Workspace;

/// How the container gets its root file system.
pub(super) enum Rootfs {
    /// A mount in containerd's form.
    Mount(Value),
    /// Images of layers, the topmost first.
    Layers(Vec<PathBuf>),
}

/// Not 0, so that it is seen to arrive.
const EXIT_CODE: i32 = 7;

/// Tells of itself what shows that it is a container, in a machine of its own, on the merged layers.
const SCRIPT: &str = r#"
echo "kernel      $(uname -sr)"
echo "process 1   $(cat /proc/1/comm), and this is process $$"
echo "cgroup      $(cat /proc/self/cgroup)"
echo "namespaces  $(for n in cgroup ipc mnt pid uts; do readlink /proc/self/ns/$n; done | tr '\n' ' ')"
echo "message     $(cat /srv/message)"
echo "added       $(cat /srv/added)"
echo "fourth      $(cat /srv/fourth)"
echo "doomed      $(cat /srv/doomed 2>/dev/null || echo removed)"
echo "writable    $(echo yes > /srv/new && cat /srv/new)"
exit 7
"#;

/// What the layers must come to when they are merged in the right order.
const EXPECTED: [&str; 5] = [
    "message     from layer 2",
    "added       from layer 2",
    "fourth      from layer 4",
    "doomed      removed",
    "writable    yes",
];

/// Runs the container and checks its output, its exit code, and that `vc` removed what it made for itself.
pub(super) fn run(workspace: &Workspace, vc: &Path, rootfs: &Rootfs) -> Result<()> {
    // Not below the target directory: a socket's path may have 107 bytes at most.
    let runtime = tempfile::tempdir().context("cannot make a temporary directory")?;
    let mut command = workspace.vc(vc);
    command.env("XDG_RUNTIME_DIR", runtime.path()).args(["run", "--timeline"]);
    match rootfs {
        Rootfs::Mount(mount) => {
            command.arg("--rootfs-mount").arg(mount.to_string());
        }
        Rootfs::Layers(layers) => {
            for layer in layers {
                command.arg("--layer").arg(layer);
            }
        }
    }
    command.args(["--", "sh", "-c", SCRIPT.trim()]);
    println!("$ {}", process::line(&command).replace(SCRIPT.trim(), "…"));
    let (lines, code) = run_and_show(&mut command)?;
    println!("exit code {}", code.map_or("none: ended by a signal".to_owned(), |code| code.to_string()));
    ensure!(code == Some(EXIT_CODE), "the container should have exited with {EXIT_CODE}");
    for expected in EXPECTED {
        ensure!(lines.iter().any(|line| line == expected), "the container should have written `{expected}`");
    }
    let left = fs::read_dir(runtime.path())?.next();
    ensure!(left.is_none(), "vc left a file in its runtime directory: {left:?}");
    Ok(())
}

fn run_and_show(command: &mut Command) -> Result<(Vec<String>, Option<i32>)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", process::line(command)))?;
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().context("no pipe")?).lines() {
        let line = line.context("cannot read what the container writes")?;
        println!("{line}");
        lines.push(line);
    }
    let status = child.wait().context("cannot wait for vc")?;
    Ok((lines, status.code()))
}
