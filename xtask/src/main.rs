//! The project's own commands, called as `cargo xtask COMMAND`. This file reads the command line;
//! each command has a file of its own.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a build tool talks to the person who runs it"
)]

mod guest;
mod process;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::prelude::*;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  guest [--kernel FILE] [--modules DIR] [--init FILE] [--out DIR] [--update]
        builds the guest image (vmlinux, initrd, manifest.json) below target/guest
  tidy  checks the tree: directions of dependencies, lints, change log, ...
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = lexopt::Parser::from_env();
    match arguments.next()? {
        Some(Value(command)) => match command.to_str() {
            Some("guest") => guest::run(&guest::Options::parse(&mut arguments)?),
            Some("tidy") => {
                no_more(&mut arguments)?;
                tidy::run()
            }
            _ => bail!("unknown command {}\n\n{USAGE}", command.display()),
        },
        Some(Long("help") | Short('h')) => {
            print!("{USAGE}");
            Ok(())
        }
        Some(other) => Err(other.unexpected().into()),
        None => bail!("which command?\n\n{USAGE}"),
    }
}

fn no_more(arguments: &mut lexopt::Parser) -> Result<()> {
    match arguments.next()? {
        Some(argument) => Err(argument.unexpected().into()),
        None => Ok(()),
    }
}
