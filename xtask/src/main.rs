//! The project's own commands, called as `cargo xtask COMMAND`. This file reads the command line;
//! each command has a file of its own.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a build tool talks to the person who runs it"
)]

mod apt;
mod bench;
mod demo;
mod fuzz;
mod guest;
mod integration;
mod layers;
mod nydus;
mod process;
mod seccomp;
mod soak;
mod test;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::prelude::*;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  guest [--kernel small|FILE] [--modules DIR] [--init FILE] [--out DIR]
        [--compress] [--update]
        builds the guest image (vmlinux, initrd, manifest.json) below target/guest;
        --kernel small for a kernel built here that starts faster, below
        target/guest-small (some minutes, once),
        --compress for an initrd of half the size that takes longer to start,
        --update for the newest kernel package instead of the one at hand
  demo  runs a container from EROFS layers in a virtual machine, and leaves nothing behind
  test  installs what the tests need and runs every check there is
  integration [--host local|nested] [--accel auto|kvm|tcg] [--vfio BDF]... [FILTER]
        runs the tests that boot machines where KVM, vhost-vsock and VFIO are real: on
        this host, or in a nested one that is built for it; --vfio names a PCI
        device of this host that tests may take
  bench boot [--rounds N] [--accel tcg|kvm] [--guest DIR]
        times `vc run` next to a bare QEMU that boots the same image; --guest for
        another guest image in the same rounds
  bench start [--rounds N] [--accel tcg|kvm]
        times `vc run` to its first output next to the same QEMU started by hand and
        what the guest takes to create and start the container, and its end
  bench memory [--rounds N] [--accel tcg|kvm]
        tells the memory of a container's owner, before and after N processes were
        executed in it, 1000 if not told otherwise; needs root
  bench plug [--rounds N] [--accel tcg|kvm]
        times a plug and an unplug next to the same by raw QMP
  bench layers [--rounds N] [--accel tcg|kvm]
        times `vc run` with 8, 32 and 128 layers next to one with a single layer
  bench exec|stdio|rpc [--rounds N] [--accel tcg|kvm]
        times the way to a container next to the guest's executor, a bare vsock
        connection, and a bare call
  bench mounts
        times vc-mountinfo next to the crates that do the same; needs root
  bench plan [--rounds N]
        times the plan of 128 layers and 200 mounts, without the look-ups
  bench virtiofs [--rounds N] [--accel tcg|kvm]
        times reads and writes of a shared directory next to the same virtiofsd
        started by hand; needs root
  soak [machines|owners|containers|sandboxes|faults|model]... [--times N] [--seed N]
        does what the tests do a few times many times over, and looks for what is
        left or lost: processes, files, descriptors, memory, exit codes
  fuzz [SECONDS]
        feeds any bytes to each parser, for 60 seconds or as many as given
  nydus builds nydusd and nydus-image into target/tools, so that the tests that need
        them are not skipped (some minutes, once)
  tidy  checks the tree: directions of dependencies, lints, change log, ...
";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let mut arguments = lexopt::Parser::from_env();
    let command = match arguments.next()? {
        Some(Value(command)) => command.string()?,
        Some(Long("help") | Short('h')) => "help".to_owned(),
        Some(other) => return Err(other.unexpected().into()),
        None => bail!("which command?\n\n{USAGE}"),
    };
    match command.as_str() {
        "guest" => guest::run(&guest::Options::parse(&mut arguments)?)?,
        "bench" => bench::run(&bench::Options::parse(&mut arguments)?)?,
        "fuzz" => {
            let seconds = arguments.next()?.map(|argument| match argument {
                Value(seconds) => Ok(seconds.parse::<u64>()?),
                other => Err(anyhow::Error::from(other.unexpected())),
            });
            no_more(&mut arguments)?;
            let each = std::time::Duration::from_secs(seconds.transpose()?.unwrap_or(60));
            fuzz::run(&workspace::Workspace::load()?, each)?;
        }
        "integration" => {
            return match integration::Options::parse(&mut arguments)? {
                integration::Command::Inside(plan) => integration::inside(&plan),
                integration::Command::Outside(options) => integration::run(&options),
            };
        }
        "soak" => soak::run(&soak::Options::parse(&mut arguments)?)?,
        "demo" => {
            no_more(&mut arguments)?;
            demo::run()?;
        }
        "test" => {
            no_more(&mut arguments)?;
            return test::run();
        }
        "nydus" => {
            no_more(&mut arguments)?;
            nydus::run()?;
        }
        "tidy" => {
            no_more(&mut arguments)?;
            tidy::run()?;
        }
        "help" => print!("{USAGE}"),
        other => bail!("unknown command {other}\n\n{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn no_more(arguments: &mut lexopt::Parser) -> Result<()> {
    match arguments.next()? {
        Some(argument) => Err(argument.unexpected().into()),
        None => Ok(()),
    }
}
