//! `cargo xtask nydus`: builds nydusd and nydus-image, which some tests use and no other part needs.

use anyhow::{Context, Result};

use crate::apt::{self, Need};
use crate::process;
use crate::workspace::Workspace;

/// The package on crates.io, at the version that the project was tested with.
const PACKAGE: &str = "nydus-rs";
const VERSION: &str = "2.2.0";

const PROGRAMS: [&str; 2] = ["nydusd", "nydus-image"];

/// Builds what is missing, where `cargo xtask test` finds it.
pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::load()?;
    let tools = workspace.tools();
    if let [Some(nydusd), Some(image)] = PROGRAMS.map(|program| workspace.find(program)) {
        println!("{} and {} are there", nydusd.display(), image.display());
        return Ok(());
    }
    apt::install(&[Need { program: "cmake", package: "cmake" }])?;
    println!("building {PACKAGE} {VERSION} into {}", tools.display());
    let mut command = workspace.cargo();
    command.args(["install", "--locked", "--version", VERSION, "--root"]).arg(&tools);
    // It serves machines only, and images whose data is in files: without FUSE and registries it is built in half the
    // time, and not optimized it is fast enough for tests.
    command.args(["--debug", "--no-default-features", "--features", "virtiofs"]);
    command.env("CARGO_PROFILE_DEV_DEBUG", "0");
    // A library in C that it brings asks for a version of cmake that those of today no longer take.
    command.env("CMAKE_POLICY_VERSION_MINIMUM", "3.5");
    for program in PROGRAMS {
        command.args(["--bin", program]);
    }
    process::show(command.arg(PACKAGE)).with_context(|| format!("cannot build {}", PROGRAMS.join(" and ")))
}
