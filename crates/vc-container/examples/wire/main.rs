//! `wire SOURCE [--rounds N] [--accel tcg] [exec] [stdio] [rpc]`: what the way to a container costs, next to what is
//! behind it. `cargo xtask bench exec stdio rpc` builds what this needs, and runs it.
//!
//! `SOURCE` is the static program `byte_source`, which sends bytes over a vsock connection of its own or to its standard
//! output.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod bed;
mod exec;
mod rpc;
mod series;
mod stdio;

use std::error::Error;
use std::path::PathBuf;

use vc_hypervisor::Accelerator;

use bed::Bed;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut rounds = 0;
    let mut accelerator = Accelerator::Tcg;
    let (mut source, mut subjects) = (None, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = arguments.next().ok_or("--rounds needs a number")?.parse()?,
            "--accel" => accelerator = arguments.next().ok_or("--accel needs a name")?.parse()?,
            "exec" | "stdio" | "rpc" => subjects.push(argument),
            _ => source = Some(PathBuf::from(argument)),
        }
    }
    let source = source.ok_or("usage: wire SOURCE [--rounds N] [--accel tcg] [exec] [stdio] [rpc]")?;
    let bed = Bed::make(&source, accelerator).await?;
    for subject in subjects {
        match subject.as_str() {
            "exec" => exec::measure(&bed, rounds).await?,
            "stdio" => stdio::measure(&bed, rounds).await?,
            _ => rpc::measure(&bed, rounds).await?,
        }
    }
    bed.end().await
}
