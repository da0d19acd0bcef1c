//! `cargo xtask integration`: the tests that boot machines, on a host that has what users have: KVM, vhost-vsock, an IOMMU
//! with devices to pass through, device mapper. Where this host lacks that, a nested one is built: a machine under
//! emulation whose processor has AMD's virtualization and whose kernel is Debian's.

mod host;
mod nested;
mod passthrough;
mod plan;
mod report;
mod runner;
mod suite;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::*;

use crate::apt;
use crate::guest;
use crate::seccomp;
use crate::test::Count;
use crate::tools::{self, CARGO_NEXTEST, TEST_PACKAGES, VM_PACKAGES, VSOCK_DAEMON};
use crate::workspace::Workspace;
use host::Facts;
use plan::Plan;
use runner::UP;

/// The tests that the smoke part of `cargo xtask test` runs have this in their names.
const SMOKE: &str = "smoke_";

/// Where the tests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    /// On this host.
    Local,
    /// In a machine that is made for it.
    Nested,
}

/// What the command line can choose.
#[derive(Debug, Default)]
pub(crate) struct Options {
    host: Option<Host>,
    accelerator: Option<String>,
    devices: Vec<String>,
    filter: Option<String>,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Command {
    /// What a person asks for.
    Outside(Options),
    /// What the nested host is started with: a plan.
    Inside(PathBuf),
}

impl Options {
    /// Reads what follows `integration` on the command line.
    pub(crate) fn parse(arguments: &mut lexopt::Parser) -> Result<Command> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("inside") => return Ok(Command::Inside(arguments.value()?.into())),
                Long("host") => options.host = Some(parse_host(&arguments.value()?.string()?)?),
                Long("accel") => options.accelerator = Some(parse_accelerator(arguments.value()?.string()?)?),
                Long("vfio") => options.devices.push(arguments.value()?.string()?),
                Value(filter) if options.filter.is_none() => options.filter = Some(filter.string()?),
                other => return Err(other.unexpected().into()),
            }
        }
        if options.host == Some(Host::Nested) && !options.devices.is_empty() {
            bail!("--vfio names devices of this host; the nested one has its own");
        }
        Ok(Command::Outside(options))
    }
}

fn parse_host(name: &str) -> Result<Host> {
    match name {
        "local" => Ok(Host::Local),
        "nested" => Ok(Host::Nested),
        _ => bail!("{name:?} is no host to test on; choose local or nested"),
    }
}

fn parse_accelerator(name: String) -> Result<String> {
    match name.as_str() {
        "auto" | "kvm" | "tcg" => Ok(name),
        _ => bail!("{name:?} is no accelerator; choose auto, kvm or tcg"),
    }
}

/// Runs the suite. The last line written is `N passed, N failed`.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let facts = Facts::gather();
    let host = options.host.unwrap_or(if facts.has_kvm() { Host::Local } else { Host::Nested });
    let image = prepare(&workspace, host)?;
    let mut plan = Plan::whole(&workspace)?;
    match (&options.filter, host) {
        (Some(part), _) => plan.keep(part)?,
        (None, Host::Nested) => plan.keep_for_nested(&workspace)?,
        (None, Host::Local) => {}
    }
    plan.set("VC_GUEST", &image.to_string_lossy());
    plan.set(
        "VC_ACCEL",
        options.accelerator.as_deref().unwrap_or(if host == Host::Local { "auto" } else { "kvm" }),
    );
    let started = Instant::now();
    let report = match host {
        Host::Local => {
            println!("{facts}");
            passthrough::name_devices(&mut plan, &options.devices)?;
            runner::run(&plan)?
        }
        Host::Nested => nested::run(&workspace, &plan)?,
    };
    println!("{}", report.table(&plan.left_out, started.elapsed()));
    Ok(if report.count().failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The smoke part, for `cargo xtask test`, which has installed and built what it needs.
pub(crate) fn smoke(workspace: &Workspace) -> Result<Count> {
    let mut plan = Plan::whole(workspace)?;
    plan.keep(SMOKE)?;
    plan.set("VC_ACCEL", "kvm");
    let started = Instant::now();
    let report = nested::run(workspace, &plan)?;
    println!("{}", report.table(&plan.left_out, started.elapsed()));
    ensure!(!report.is_empty(), "no test ran in the nested host; all were skipped");
    Ok(report.count())
}

/// The inside of a nested host: runs those tests of the plan that the outside asks for, which reads what this writes.
pub(crate) fn inside(plan: &Path) -> Result<ExitCode> {
    let mut plan = Plan::read(plan)?;
    passthrough::take_the_nested_hosts(&mut plan)?;
    if plan.tells_the_host {
        println!("{}", Facts::gather());
    }
    println!("{UP}");
    runner::serve(&plan, io::stdin().lock())?;
    Ok(ExitCode::SUCCESS)
}

/// Installs and builds what the tests need; an image that `VC_GUEST` names is taken as it is.
fn prepare(workspace: &Workspace, host: Host) -> Result<PathBuf> {
    apt::install(&VM_PACKAGES)?;
    apt::install(&TEST_PACKAGES)?;
    seccomp::ensure(workspace)?;
    tools::ensure(workspace, CARGO_NEXTEST)?;
    // The kernel of a nested host serves vsock.
    if host == Host::Local {
        tools::ensure(workspace, VSOCK_DAEMON)?;
    }
    match std::env::var_os("VC_GUEST") {
        Some(image) => std::path::absolute(image).context("VC_GUEST is no path"),
        None => guest::build(workspace, &guest::Options::default()).context("cannot build the guest image"),
    }
}
