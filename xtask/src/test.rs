//! `cargo xtask test`: installs what the tests need and runs every check there is, in the order in which a failure is
//! cheapest to find. What runs here is what runs anywhere: the project has no other checks.

mod count;
mod package;
mod step;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::apt;
use crate::tools::{self, CARGO_DENY, CARGO_NEXTEST, TEST_PACKAGES, VM_PACKAGES, VSOCK_DAEMON};
use crate::workspace::Workspace;
use crate::{fuzz, guest, integration, process, seccomp, tidy};
pub(crate) use count::Count;
use step::{Report, Step};

const STEPS: [Step; 12] = [
    Step { name: "tools", run: install },
    Step { name: "format", run: format },
    Step { name: "tidy", run: tidy },
    Step { name: "dependencies", run: dependencies },
    Step { name: "clippy", run: clippy },
    Step { name: "documentation", run: documentation },
    Step { name: "guest image", run: guest_image },
    Step { name: "tests", run: tests },
    Step { name: "nested host", run: integration::smoke },
    Step { name: "doc tests", run: doc_tests },
    Step { name: "package", run: package },
    Step { name: "fuzzing", run: fuzzing },
];

/// Runs the steps up to the first that fails. The last line written is `N passed, N failed`.
pub(crate) fn run() -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let started = Instant::now();
    let mut report = Report::default();
    for step in &STEPS {
        if !report.take(step, &workspace) {
            break;
        }
    }
    let left = STEPS.iter().skip(report.len()).map(|step| step.name);
    println!("{}", report.table(left, started.elapsed()));
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn install(workspace: &Workspace) -> Result<Count> {
    apt::install(&VM_PACKAGES)?;
    apt::install(&TEST_PACKAGES)?;
    seccomp::ensure(workspace)?;
    for tool in [CARGO_DENY, CARGO_NEXTEST, VSOCK_DAEMON] {
        tools::ensure(workspace, tool)?;
    }
    Ok(Count::default())
}

fn format(workspace: &Workspace) -> Result<Count> {
    process::show(workspace.cargo().args(["fmt", "--all", "--check"]))
        .context("`cargo fmt --all` mends this")?;
    Ok(Count::default())
}

fn tidy(_: &Workspace) -> Result<Count> {
    tidy::run()?;
    Ok(Count::default())
}

fn dependencies(workspace: &Workspace) -> Result<Count> {
    let deny = |arguments: &[&str]| {
        let mut command = workspace.cargo();
        command.args(["deny", "--workspace", "--all-features", "--log-level=error"]).args(arguments);
        command
    };
    process::show(&mut deny(&["check", "bans", "licenses", "sources"]))?;
    match process::output(&mut deny(&["fetch", "db"])) {
        Ok(_) => process::show(&mut deny(&["check", "--disable-fetch", "advisories"]))?,
        Err(error) => println!("skipped: advisories, since their database cannot be had\n{error:#}"),
    }
    Ok(Count::default())
}

fn clippy(workspace: &Workspace) -> Result<Count> {
    let mut command = workspace.cargo();
    command.args([
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ]);
    process::show(&mut command)?;
    Ok(Count::default())
}

fn documentation(workspace: &Workspace) -> Result<Count> {
    let mut command = workspace.cargo();
    command.args(["doc", "--locked", "--workspace", "--no-deps", "--all-features"]);
    process::show(command.env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(Count::default())
}

/// Builds the image that the tests boot, and builds it once more: the same inputs must give the same bytes.
fn guest_image(workspace: &Workspace) -> Result<Count> {
    let first = guest::build(workspace, &guest::Options::default())?;
    let directory = tempfile::tempdir_in(&workspace.target).context("cannot make a temporary directory")?;
    let second = guest::build(workspace, &guest::Options::into(directory.path()))?;
    let differing = guest::differing(&first, &second)?;
    ensure!(differing.is_empty(), "built twice from the same inputs, these differ: {}", differing.join(", "));
    println!("guest: built twice, the same bytes");
    let complaints = guest::too_large(&first)?;
    ensure!(complaints.is_empty(), "the guest image is too large: {}", complaints.join("; "));
    Ok(Count::default())
}

fn tests(workspace: &Workspace) -> Result<Count> {
    let mut command = workspace.cargo();
    command.args(["nextest", "run", "--locked", "--workspace", "--all-features", "--no-fail-fast"]);
    // The image was built in a step before, so a test that does not find it is not skipped but fails.
    command.env("VC_TEST_VM", "required");
    let mut count = count::run(&mut command)?;
    // Once more without statmount and listmount, as on an older kernel: not forced to take another way, but left to it.
    let mut older = workspace.cargo();
    older.args(["nextest", "run", "--locked", "--workspace", "--all-features", "--no-fail-fast"]);
    older.args(["--filterset", "binary_id(vc-mountinfo::live)"]);
    count += count::run(older.env("VC_TEST_REFUSE", "457,458"))?;
    Ok(count)
}

fn doc_tests(workspace: &Workspace) -> Result<Count> {
    let mut command = workspace.cargo();
    command.args(["test", "--locked", "--workspace", "--all-features", "--doc", "--no-fail-fast"]);
    count::run(&mut command)
}

fn package(workspace: &Workspace) -> Result<Count> {
    package::check(workspace)?;
    Ok(Count::default())
}

/// A minute in all: enough for what any change to a parser is likely to break, and to know that the targets still build.
fn fuzzing(workspace: &Workspace) -> Result<Count> {
    let passed = fuzz::smoke(workspace, Duration::from_secs(60))?;
    Ok(Count { passed, failed: 0 })
}
