//! `cargo xtask bench boot`: how long a start takes, next to a bare QEMU that boots the same image in the same rounds.
//! What else the machine does then disturbs both alike, so the ratios mean more than the milliseconds.

mod bare;
mod container;
mod series;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::*;

use crate::tools::{self, VM_PACKAGES, VSOCK_DAEMON};
use crate::workspace::Workspace;
use crate::{apt, guest, layers, process};
use series::Series;

/// What the command line can choose.
#[derive(Debug)]
pub(crate) struct Options {
    rounds: usize,
    accelerator: String,
}

impl Options {
    /// Reads what follows `bench` on the command line.
    pub(crate) fn parse(arguments: &mut lexopt::Parser) -> Result<Self> {
        let mut options = Self { rounds: 5, accelerator: "tcg".to_owned() };
        let mut subject = None;
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("rounds") => options.rounds = arguments.value()?.parse()?,
                Long("accel") => options.accelerator = arguments.value()?.string()?,
                Value(value) if subject.is_none() => subject = Some(value.string()?),
                other => return Err(other.unexpected().into()),
            }
        }
        ensure!(options.rounds > 0, "--rounds must be at least 1");
        match subject.as_deref() {
            Some("boot") => Ok(options),
            _ => bail!("what to measure? There is: bench boot"),
        }
    }
}

/// Measures, and prints medians and ratios.
pub(crate) fn run(options: &Options) -> Result<()> {
    let workspace = Workspace::load()?;
    apt::install(&VM_PACKAGES)?;
    tools::ensure(&workspace, VSOCK_DAEMON)?;
    let image = guest::build(&workspace, &guest::Options::default())?;
    process::show(workspace.cargo().args(["build", "--locked", "--release", "--package", "vc-cli"]))?;
    let vc = workspace.target.join("release/vc");
    let directory = tempfile::tempdir_in(&workspace.target).context("cannot make a temporary directory")?;
    let layer = layers::make_base(directory.path())?;

    let mut table = Table::default();
    for round in 1..=options.rounds {
        let bare = bare::boot(&image, &options.accelerator)?;
        let container = container::run(&workspace, &vc, &layer.image, &options.accelerator)?;
        table.init.push(bare.init);
        table.serving.push(bare.serving);
        table.output.push(container.output);
        table.end.push(container.end);
        println!(
            "round {round}: bare agent {:.0} ms, first output {:.0} ms",
            ms(bare.serving),
            ms(container.output)
        );
        if round == options.rounds {
            println!("\nthe last round's timeline of vc:\n{}", container.timeline.trim_end());
        }
    }
    table.print(options);
    Ok(())
}

#[derive(Default)]
struct Table {
    init: Series,
    serving: Series,
    output: Series,
    end: Series,
}

impl Table {
    fn print(&self, options: &Options) {
        let bare = self.serving.median();
        println!("\nmedian of {} rounds with {}, in ms since exec:", options.rounds, options.accelerator);
        println!("{:<44} {:>7} {:>7} {:>9}", "", "median", "least", "to bare");
        let rows = [
            ("bare QEMU: /init starts", &self.init),
            ("bare QEMU: the agent serves", &self.serving),
            ("vc run: first output of the container", &self.output),
            ("vc run: everything has ended", &self.end),
        ];
        for (what, series) in rows {
            let (median, least) = (series.median(), series.least());
            let ratio = median.as_secs_f64() / bare.as_secs_f64();
            println!("{what:<44} {:>7.0} {:>7.0} {ratio:>8.2}x", ms(median), ms(least));
        }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
