//! `cargo xtask guest`: builds the guest image with `vc-guest` as `/init`, which it compiles, and the small kernel.
//!
//! The same kernel, modules, sources and compiler give the same bytes, wherever they are built.

mod host_image;
mod init;
mod size;
mod small;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;
use vc_image::debian::{KERNEL, Package, Versioned};
use vc_image::{FILES, ImageSpec, KernelSource, Outcome};

use crate::workspace::Workspace;
pub(crate) use host_image::{HostImage, build_host};
pub(crate) use init::example;
pub(crate) use size::too_large;

/// What the command line can choose.
#[derive(Debug, Default)]
pub(crate) struct Options {
    kernel: KernelChoice,
    modules: Option<PathBuf>,
    init: Option<PathBuf>,
    out: Option<PathBuf>,
    compress: bool,
    update: bool,
}

/// Which kernel the guest gets.
#[derive(Debug, Default)]
enum KernelChoice {
    /// Debian's, as it comes.
    #[default]
    Distribution,
    /// Built here from Debian's source, with little but what a guest needs.
    Small,
    /// The user's own.
    File(PathBuf),
}

impl KernelChoice {
    fn parse(value: OsString) -> Self {
        if value == "small" { Self::Small } else { Self::File(value.into()) }
    }
}

impl Options {
    /// The image from Debian's kernel, in this directory.
    pub(crate) fn into(directory: &Path) -> Self {
        Self { out: Some(directory.to_owned()), ..Self::default() }
    }

    /// The image from Debian's kernel with another `/init`, in this directory.
    pub(crate) fn with_init(init: PathBuf, directory: &Path) -> Self {
        Self { init: Some(init), ..Self::into(directory) }
    }

    /// Reads what follows `guest` on the command line.
    pub(crate) fn parse(arguments: &mut lexopt::Parser) -> Result<Self> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("kernel") => options.kernel = KernelChoice::parse(arguments.value()?),
                Long("modules") => options.modules = Some(arguments.value()?.into()),
                Long("init") => options.init = Some(arguments.value()?.into()),
                Long("out") => options.out = Some(arguments.value()?.into()),
                Long("compress") => options.compress = true,
                Long("update") => options.update = true,
                other => return Err(other.unexpected().into()),
            }
        }
        if options.modules.is_some() && !matches!(options.kernel, KernelChoice::File(_)) {
            bail!(
                "--modules needs --kernel FILE: modules work only with the kernel that they were built with"
            );
        }
        Ok(options)
    }

    /// Where the image goes. That with the small kernel has a place of its own, so that both can be at hand.
    fn directory(&self, workspace: &Workspace) -> PathBuf {
        let default = || match self.kernel {
            KernelChoice::Small => workspace.target.join("guest-small"),
            KernelChoice::Distribution | KernelChoice::File(_) => workspace.guest_image(),
        };
        self.out.clone().unwrap_or_else(default)
    }
}

/// Builds the image unless it is already there, and says so.
pub(crate) fn run(options: &Options) -> Result<()> {
    let workspace = Workspace::load()?;
    build(&workspace, options)?;
    Ok(())
}

/// Builds the image unless it is already there; returns the directory that has it.
pub(crate) fn build(workspace: &Workspace, options: &Options) -> Result<PathBuf> {
    let started = Instant::now();
    let directory = options.directory(workspace);
    let init = match &options.init {
        Some(file) => file.clone(),
        None => init::build(workspace)?,
    };
    let kernel = kernel(workspace, options)?;
    let what = match (ImageSpec { kernel, init, compress: options.compress }).build(&directory, &tell)? {
        Outcome::UpToDate => "is up to date",
        Outcome::Built => "is built",
    };
    println!("guest: {} {what} ({:.1} s)", directory.display(), started.elapsed().as_secs_f32());
    Ok(directory)
}

/// The names of the files that differ between two images.
pub(crate) fn differing(one: &Path, other: &Path) -> Result<Vec<&'static str>> {
    let read = |path: PathBuf| fs::read(&path).with_context(|| format!("cannot read {}", path.display()));
    let mut names = Vec::new();
    for name in FILES {
        if read(one.join(name))? != read(other.join(name))? {
            names.push(name);
        }
    }
    Ok(names)
}

/// The kernel that the options ask for, downloaded or built if it is not there yet.
fn kernel(workspace: &Workspace, options: &Options) -> Result<KernelSource> {
    Ok(match &options.kernel {
        KernelChoice::File(kernel) => KernelSource::files(kernel.clone(), options.modules.clone()),
        KernelChoice::Small => small::build(workspace, options.update)?,
        KernelChoice::Distribution => KernelSource::Package(fetch_kernel(workspace, options.update)?),
    })
}

fn fetch_kernel(workspace: &Workspace, update: bool) -> Result<Package> {
    fetch(&KERNEL, &workspace.target.join("kernel-package"), update)
}

fn fetch(wanted: &Versioned, cache: &Path, update: bool) -> Result<Package> {
    Package::fetch(wanted, cache, update, &tell)
        .context("cannot have Debian's kernel; name your own with --kernel and --modules")
}

fn tell(text: &str) {
    println!("guest: {text}");
}
