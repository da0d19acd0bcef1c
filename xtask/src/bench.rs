//! `cargo xtask bench`: how long a start takes, next to a bare QEMU that boots the same image in the same rounds; what the
//! way to a container costs, next to what is behind it; and how long it takes to look mounts up, next to other crates.
//! What else the machine does then disturbs both alike, so the ratios mean more than the milliseconds.

mod bare;
mod container;
mod layers;
mod memory;
mod plug;
mod series;
mod start;
mod virtiofs;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::*;

use crate::tools::{self, EROFS_UTILS, VM_PACKAGES, VSOCK_DAEMON};
use crate::workspace::Workspace;
use crate::{apt, guest, process};
use series::Series;

/// What can be measured of the way to a container, in one machine.
const WIRE: [&str; 3] = ["exec", "stdio", "rpc"];

/// What can be measured.
const SUBJECTS: &str =
    "boot, start, memory, plug, layers, exec, stdio, rpc, mounts, plan, virtiofs; several may be named";

/// What the command line can choose.
#[derive(Debug)]
pub(crate) struct Options {
    subjects: Vec<Subject>,
    /// What of the way to a container is measured.
    wire: Vec<String>,
    /// How often; each subject has a number of its own.
    rounds: Option<usize>,
    accelerator: String,
    /// Another guest image, started in the same rounds as the usual one.
    other_guest: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    /// The start of a container, next to a bare QEMU.
    Boot,
    /// The first output of a container, next to the least that it could take.
    Start,
    /// The memory of a container's owner.
    Memory,
    /// A plug, next to raw QMP.
    Plug,
    /// The start of a container with many layers, next to one with a single layer.
    Layers,
    /// The way to a container: exec, standard output, calls.
    Wire,
    /// Look-ups in the mount table, next to other crates that do the same.
    Mounts,
    /// The plan of many layers and mounts, without the look-ups.
    Plan,
    /// A shared directory, next to the same server by hand.
    Virtiofs,
}

impl Options {
    /// Reads what follows `bench` on the command line.
    pub(crate) fn parse(arguments: &mut lexopt::Parser) -> Result<Self> {
        let mut options = Self {
            subjects: Vec::new(),
            wire: Vec::new(),
            rounds: None,
            accelerator: "tcg".to_owned(),
            other_guest: None,
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("rounds") => options.rounds = Some(arguments.value()?.parse()?),
                Long("guest") => options.other_guest = Some(std::path::absolute(arguments.value()?)?),
                Long("accel") => options.accelerator = arguments.value()?.string()?,
                Value(value) => options.add(&value.string()?)?,
                other => return Err(other.unexpected().into()),
            }
        }
        ensure!(options.rounds != Some(0), "--rounds must be at least 1");
        ensure!(!options.subjects.is_empty(), "what to measure? There are: {SUBJECTS}");
        Ok(options)
    }

    fn add(&mut self, name: &str) -> Result<()> {
        let subject = match name {
            "boot" => Subject::Boot,
            "start" => Subject::Start,
            "memory" => Subject::Memory,
            "plug" => Subject::Plug,
            "layers" => Subject::Layers,
            "mounts" => Subject::Mounts,
            "plan" => Subject::Plan,
            "virtiofs" => Subject::Virtiofs,
            _ if WIRE.contains(&name) => {
                self.wire.push(name.to_owned());
                Subject::Wire
            }
            _ => bail!("{name:?} cannot be measured. What can: {SUBJECTS}"),
        };
        // What of the way to a container is measured is measured in one machine.
        if !self.subjects.contains(&subject) {
            self.subjects.push(subject);
        }
        Ok(())
    }
}

/// Measures, and prints medians and ratios.
pub(crate) fn run(options: &Options) -> Result<()> {
    let workspace = Workspace::load()?;
    options.subjects.iter().try_for_each(|subject| match subject {
        Subject::Boot => boot(&workspace, options),
        Subject::Start => {
            let (image, vc) = ready(&workspace)?;
            start::measure(&workspace, &image, &vc, options)
        }
        Subject::Memory => {
            let (_, vc) = ready(&workspace)?;
            memory::measure(&workspace, &vc, options)
        }
        Subject::Plug => plug::run(&workspace, options),
        Subject::Layers => {
            let (image, vc) = ready(&workspace)?;
            layers::measure(&workspace, &image, &vc, options)
        }
        Subject::Wire => wire::run(&workspace, options),
        // A workspace of its own, so that no crate here depends on the peers.
        Subject::Mounts => mounts(&workspace),
        Subject::Plan => plan(&workspace, options),
        Subject::Virtiofs => virtiofs::run(&workspace, options),
    })
}

fn mounts(workspace: &Workspace) -> Result<()> {
    apt::install(&[EROFS_UTILS])?;
    let manifest = ["--manifest-path", "bench/Cargo.toml"];
    process::show(
        workspace.cargo().args(["run", "--locked", "--release"]).args(manifest).args(["--", "mounts"]),
    )
}

fn plan(workspace: &Workspace, options: &Options) -> Result<()> {
    let mut command = workspace.cargo();
    command.args([
        "run",
        "--locked",
        "--release",
        "--package",
        "vc-storage",
        "--example",
        "plan_speed",
        "--",
    ]);
    process::show(command.args(options.rounds.map(|rounds| rounds.to_string())))
}

/// Makes sure that all is there to start a machine; gives the guest image and the command.
fn ready(workspace: &Workspace) -> Result<(PathBuf, PathBuf)> {
    apt::install(&VM_PACKAGES)?;
    tools::ensure(workspace, VSOCK_DAEMON)?;
    let usual = guest::build(workspace, &guest::Options::default())?;
    process::show(workspace.cargo().args(["build", "--locked", "--release", "--package", "vc-cli"]))?;
    Ok((usual, workspace.target.join("release/vc")))
}

fn boot(workspace: &Workspace, options: &Options) -> Result<()> {
    let (usual, vc) = ready(workspace)?;
    let directory = tempfile::tempdir_in(&workspace.target).context("cannot make a temporary directory")?;
    let layer = crate::layers::make_base(directory.path())?;

    let images: Vec<&Path> = std::iter::once(&*usual).chain(options.other_guest.as_deref()).collect();
    let mut tables: Vec<Table> = images.iter().map(|_| Table::default()).collect();
    let rounds = options.rounds.unwrap_or(5);
    for round in 1..=rounds {
        for (image, table) in images.iter().zip(&mut tables) {
            let bare = bare::boot(workspace, image, &options.accelerator)?;
            let vc = {
                let layers = std::slice::from_ref(&layer.image);
                container::run(workspace, &vc, image, layers, &options.accelerator)?
            };
            // From the first line of /init on, which is what the agent can be blamed for.
            let agent = bare.serving.saturating_sub(bare.init);
            let figures = [bare.init, vc.init, bare.serving, vc.answer, vc.output, vc.end, agent];
            table.0.iter_mut().zip(figures).for_each(|(series, figure)| series.push(figure));
            println!(
                "round {round}: {}: bare agent {:.0} ms, first output {:.0} ms",
                image.display(),
                ms(bare.serving),
                ms(vc.output)
            );
            if round == rounds {
                println!("\nthe last round's timeline of vc:\n{}", vc.timeline.trim_end());
            }
        }
    }
    for (image, table) in images.iter().zip(&tables) {
        table.print(image, rounds, &options.accelerator);
    }
    if let [usual, other] = tables.as_slice() {
        other.print_against(usual);
    }
    Ok(())
}

/// What is measured, and which other figure it is held against.
const ROWS: [(&str, Option<usize>); 7] = [
    ("bare QEMU: /init", None),
    ("vc run:    /init", Some(0)),
    ("bare QEMU: the agent serves", None),
    ("vc run:    the agent answers", Some(2)),
    ("vc run:    first output of the container", Some(2)),
    ("vc run:    everything has ended", Some(2)),
    ("bare QEMU: from /init to serving", None),
];

#[derive(Default)]
struct Table([Series; ROWS.len()]);

impl Table {
    fn print(&self, image: &Path, rounds: usize, accelerator: &str) {
        println!("\n{}: {rounds} rounds with {accelerator}, in ms since the exec of QEMU:", image.display());
        println!("{:<44} {:>7} {:>7} {:>9}", "", "median", "least", "to bare");
        for ((what, against), series) in ROWS.iter().zip(&self.0) {
            let ratio = against.map(|row| format!("{:.2}x", series.to(&self.0[row]))).unwrap_or_default();
            println!("{what:<44} {:>7.0} {:>7.0} {ratio:>9}", ms(series.median()), ms(series.least()));
        }
    }

    fn print_against(&self, usual: &Self) {
        println!("\nthe second image to the first, by the median of the ratios of each round:");
        for ((what, _), (other, usual)) in ROWS.iter().zip(self.0.iter().zip(&usual.0)) {
            println!("{what:<44} {:>7.2}x", other.to(usual));
        }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
