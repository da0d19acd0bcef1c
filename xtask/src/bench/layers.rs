//! `vc run` with many layers next to `vc run` with one, in the same rounds.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::series::Series;
use super::{Options, container, ms};
use crate::layers;
use crate::workspace::Workspace;

/// How many layers; the first is what the others are held against.
const COUNTS: [usize; 4] = [1, 8, 32, 128];

/// What is shown of each count.
const COLUMNS: [&str; 4] = ["plug", "create", "running", "end"];

/// Measures, and prints medians and the ratio of the time until the container runs.
pub(super) fn measure(workspace: &Workspace, image: &Path, vc: &Path, options: &Options) -> Result<()> {
    let directory = tempfile::tempdir_in(&workspace.target).context("cannot make a temporary directory")?;
    let most = COUNTS.into_iter().max().unwrap_or_default();
    // The topmost first, the one with a program last.
    let mut images = layers::make_small(directory.path(), most - 1)?;
    images.push(layers::make_base(directory.path())?.image);
    let mut table: [[Series; COLUMNS.len()]; COUNTS.len()] = Default::default();
    let rounds = options.rounds.unwrap_or(5);
    for round in 1..=rounds {
        for (row, count) in table.iter_mut().zip(COUNTS) {
            let layers: Vec<PathBuf> = images[most - count..].to_vec();
            let run = container::run(workspace, vc, image, &layers, &options.accelerator)?;
            let figures = [run.plug, run.create, run.output, run.end];
            row.iter_mut().zip(figures).for_each(|(series, figure)| series.push(figure));
            println!("round {round}: {count:>3} layers, first output {:.0} ms", ms(run.output));
        }
    }
    print(&table, rounds, &options.accelerator);
    Ok(())
}

fn print(table: &[[Series; COLUMNS.len()]; COUNTS.len()], rounds: usize, accelerator: &str) {
    println!(
        "\n{rounds} rounds with {accelerator}: medians in ms; running and end are counted from the exec of QEMU; running, \
         to that with one layer: the median of the rounds, and the least of all to the least."
    );
    let head = [COLUMNS.as_slice(), &["to 1 layer", "of the least"]].concat();
    println!("{:>6}{}", "layers", head.iter().map(|column| format!(" {column:>12}")).collect::<String>());
    let [one, ..] = table;
    for (row, count) in table.iter().zip(COUNTS) {
        let [plug, create, running, end] = row.each_ref().map(|series| ms(series.median()));
        let ratio = row[2].to(&one[2]);
        let least = row[2].least().as_secs_f64() / one[2].least().as_secs_f64();
        println!(
            "{count:>6} {plug:>12.0} {create:>12.0} {running:>12.0} {end:>12.0} {ratio:>11.2}x {least:>11.2}x"
        );
    }
}
