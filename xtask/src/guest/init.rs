//! Builds `vc-guest`, the image's `/init`: static, and without a trace of where it was built.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::seccomp;
use crate::workspace::Workspace;

/// Given even where it is the host's own: only then cargo keeps the flags from build scripts and procedural macros,
/// which cannot be static.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds `vc-guest`; does nothing, within cargo's own check, when nothing has changed.
pub(super) fn build(workspace: &Workspace) -> Result<PathBuf> {
    const PACKAGE: &str = "vc-guest";
    if !workspace.has_package(PACKAGE)? {
        bail!("the workspace has no {PACKAGE} to be /init; name a static program with --init");
    }
    seccomp::ensure(workspace)?;
    let mut command = workspace.cargo();
    command.args(["build", "--locked", "--profile=guest-agent", "--package", PACKAGE, "--target", TARGET]);
    command.arg("--features=seccomp");
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace)?).env_remove("RUSTFLAGS");
    process::show(&mut command)?;
    Ok(workspace.target.join(TARGET).join("guest-agent").join(PACKAGE))
}

/// Builds the example `name` of `vc-guest` in the same way: static, for whatever has a kernel below it.
pub(crate) fn example(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let mut command = workspace.cargo();
    command.args(["build", "--locked", "--profile=guest-agent", "--package=vc-guest", "--target", TARGET]);
    command.args(["--example", name]);
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace)?).env_remove("RUSTFLAGS");
    process::show(&mut command)?;
    Ok(workspace.target.join(TARGET).join("guest-agent/examples").join(name))
}

/// Static, with the machine's paths replaced: they would end up in panic messages, and make two machines' images differ.
fn flags(workspace: &Workspace) -> Result<OsString> {
    let remap = |from: &Path, to: &str| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push(format!("={to}"));
        flag
    };
    let flags = [
        OsString::from("-Ctarget-feature=+crt-static"),
        remap(&workspace.root, "/vc"),
        // Of two that match, the last one given counts; the target directory is often below the workspace.
        remap(&workspace.target, "/target"),
        remap(&cargo_home()?, "/cargo"),
    ];
    // The separator of CARGO_ENCODED_RUSTFLAGS, so that paths may have spaces.
    Ok(flags.join(&OsString::from("\x1f")))
}

fn cargo_home() -> Result<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(home)
        .context("neither CARGO_HOME nor HOME is set")
}
