//! `cargo xtask demo`: from a fresh clone to a container in a virtual machine, with its layers mounted on the host as
//! containerd's EROFS snapshotter mounts them. Whatever happens, what was done is undone.

mod container;
mod leftovers;
mod snapshots;
mod undo;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::CapabilitySet;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::apt;
use crate::tools::{self, VM_PACKAGES, VSOCK_DAEMON};
use crate::workspace::Workspace;
use crate::{guest, layers, process};
use container::Rootfs;
use undo::Undo;

/// Builds what is missing, runs the container, checks what it says, and takes everything away again.
pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::load()?;
    let vc = prepare(&workspace)?;
    let stop = Stop::listen()?;
    leftovers::adopt_orphans()?;

    let directory = tempfile::Builder::new().prefix("vc-demo-").tempdir_in(&workspace.target);
    let directory = directory.context("cannot make a directory below the target directory")?;
    let mut undo = Undo::default();
    let shown = show(&workspace, &vc, directory.path(), &mut undo, &stop);

    heading("Undoing everything");
    let undone = undo.run();
    let left = leftovers::find(directory.path())?;
    directory.close().context("cannot remove the demo's directory")?;
    for thing in &left {
        println!("left behind: {thing}");
    }
    shown?;
    undone?;
    ensure!(left.is_empty(), "the demo left something behind");
    println!("nothing is left: no mount, no loop device, no process, no file");
    Ok(())
}

/// Installs and builds; nothing of this is undone, it is there for the next time.
fn prepare(workspace: &Workspace) -> Result<PathBuf> {
    heading("Preparing");
    apt::install(&VM_PACKAGES)?;
    if fs::File::options().read(true).write(true).open("/dev/vhost-vsock").is_err() {
        tools::ensure(workspace, VSOCK_DAEMON)?;
    }
    guest::build(workspace, &guest::Options::default())?;
    process::show(workspace.cargo().args(["build", "--locked", "--package", "vc-cli"]))?;
    Ok(workspace.target.join("debug/vc"))
}

fn show(workspace: &Workspace, vc: &Path, directory: &Path, undo: &mut Undo, stop: &Stop) -> Result<()> {
    heading("Making layers");
    let layers = layers::make(directory)?;
    stop.check()?;
    let rootfs = if may_mount()? {
        heading("Mounting the layers, as containerd's EROFS snapshotter does");
        let mounted = snapshots::mount(&layers, undo, || stop.check())?;
        Rootfs::Mount(snapshots::overlay(directory, &mounted)?)
    } else {
        heading("Mounting nothing: that needs root (CAP_SYS_ADMIN); vc takes the layers' files");
        Rootfs::Layers(layers.iter().rev().map(|layer| layer.image.clone()).collect())
    };
    stop.check()?;
    heading("Running a container in a virtual machine");
    container::run(workspace, vc, &rootfs)
}

/// Whether this process may mount: root may, unless it runs in a container without that right.
fn may_mount() -> Result<bool> {
    let capabilities =
        rustix::thread::capabilities(None).context("cannot read this process's capabilities")?;
    Ok(capabilities.effective.contains(CapabilitySet::SYS_ADMIN))
}

fn heading(text: &str) {
    println!("\n== {text} ==");
}

/// Whether someone asked to stop, as with Ctrl-C. Then the next step does not start, and the undo runs.
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn listen() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&asked)).context("cannot handle signals")?;
        }
        Ok(Self(asked))
    }

    fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}
