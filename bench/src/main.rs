//! Measures the vc crates beside their peers: `vc-bench mounts [--sizes 50,1000,10000] [--rounds N]`.

use anyhow::{Context, Result, bail};

mod allocations;
mod mounts;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("mounts") => mounts::run(&options(arguments)?),
        _ => bail!("usage: vc-bench mounts [--sizes 50,1000,10000] [--rounds 21]"),
    }
}

/// What `mounts` is asked to do.
#[derive(Debug)]
pub struct Options {
    /// How many mounts there are, for each table of results.
    pub sizes: Vec<usize>,
    /// How often each contender runs at most.
    pub rounds: usize,
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options { sizes: vec![50, 1000, 10_000], rounds: 21 };
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
        match &*name {
            "--sizes" => {
                let sizes = value.split(',').map(str::parse).collect::<Result<_, _>>();
                options.sizes = sizes.with_context(|| format!("{value:?} is no list of numbers"))?;
            }
            "--rounds" => {
                options.rounds = value.parse().with_context(|| format!("{value:?} is no number"))?
            }
            _ => bail!("unknown option {name}"),
        }
    }
    Ok(options)
}
