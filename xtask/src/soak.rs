//! `cargo xtask soak`: what the tests do a few times, many times over, to find what is lost by and by.

use anyhow::{Result, bail, ensure};
use lexopt::prelude::*;

use crate::tools::{self, TEST_PACKAGES, VM_PACKAGES, VSOCK_DAEMON};
use crate::workspace::Workspace;
use crate::{apt, guest, process};

/// A thing that is done many times.
#[derive(Debug)]
struct Part {
    name: &'static str,
    package: &'static str,
    program: &'static str,
    test: &'static str,
    /// How many times, if not told otherwise.
    times: u32,
}

const PARTS: [Part; 7] = [
    Part { name: "podman", package: "vc-cli", program: "vm_podman", test: "many_containers", times: 30 },
    Part { name: "machines", package: "vc-qemu", program: "vm_soak", test: "launches_in_a_row", times: 200 },
    Part {
        name: "owners",
        package: "vc-container",
        program: "vm_recover",
        test: "killed_at_any_moment",
        times: 200,
    },
    Part {
        name: "containers",
        package: "vc-container",
        program: "vm_soak",
        test: "containers_in_a_row",
        times: 1000,
    },
    Part {
        name: "sandboxes",
        package: "vc-container",
        program: "vm_soak",
        test: "sandboxes_in_a_row",
        times: 50,
    },
    // Each call goes wrong in each way: as many times as there are calls.
    Part { name: "faults", package: "vc-container", program: "vm_faults", test: "may_go_wrong", times: 1 },
    Part {
        name: "model",
        package: "vc-container",
        program: "life",
        test: "any_sequence_of_operations",
        times: 10_000,
    },
];

/// What the command line can choose.
#[derive(Debug, Default)]
pub(crate) struct Options {
    parts: Vec<&'static Part>,
    times: Option<u32>,
    seed: u64,
}

impl Options {
    /// Reads what follows `soak` on the command line.
    pub(crate) fn parse(arguments: &mut lexopt::Parser) -> Result<Self> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("times") => options.times = Some(arguments.value()?.parse()?),
                Long("seed") => options.seed = arguments.value()?.parse()?,
                Value(name) => options.parts.push(part(&name.string()?)?),
                other => return Err(other.unexpected().into()),
            }
        }
        ensure!(options.times != Some(0), "--times must be at least 1");
        if options.parts.is_empty() {
            options.parts.extend(&PARTS);
        }
        Ok(options)
    }
}

fn part(name: &str) -> Result<&'static Part> {
    let Some(part) = PARTS.iter().find(|part| part.name == name) else {
        let all: Vec<_> = PARTS.iter().map(|part| part.name).collect();
        bail!("there is no part {name:?}; there are: {}", all.join(", "));
    };
    Ok(part)
}

/// Does each part as often as it is worth, or as told. Fails when something is left, lost or otherwise than it should be.
pub(crate) fn run(options: &Options) -> Result<()> {
    let workspace = Workspace::load()?;
    apt::install(&VM_PACKAGES)?;
    apt::install(&TEST_PACKAGES)?;
    tools::ensure(&workspace, VSOCK_DAEMON)?;
    guest::build(&workspace, &guest::Options::default())?;
    for part in &options.parts {
        let times = options.times.unwrap_or(part.times);
        println!("== {}: {times} times, seed {} ==", part.name, options.seed);
        let mut command = workspace.cargo();
        command.args(["test", "--locked", "--package", part.package, "--test", part.program]);
        // One at a time: they measure, and they wait with deadlines.
        command.args(["--", "--nocapture", "--test-threads=1", part.test]);
        command.env("VC_SOAK", times.to_string()).env("VC_SOAK_SEED", options.seed.to_string());
        process::show(
            command.env("PROPTEST_RNG_SEED", options.seed.to_string()).env("VC_TEST_VM", "required"),
        )?;
    }
    Ok(())
}
