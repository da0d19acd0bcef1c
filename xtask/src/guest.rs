//! `cargo xtask guest`: builds the guest image, which is a kernel that QEMU starts without a boot loader, and an initrd
//! with the modules that containers need and `vc-guest` as `/init`.
//!
//! The same kernel, modules, sources and compiler give the same bytes, wherever they are built.

mod cpio;
mod decompress;
mod host_image;
mod init;
mod initrd;
mod lz4;
mod modules;
mod output;
mod package;
mod small;
mod source;
mod stamp;
mod vmlinux;

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;

use crate::workspace::Workspace;
pub(crate) use host_image::{HostImage, build_host};
pub(crate) use init::{example, is_static};
use output::Output;
use source::Source;
use stamp::Stamp;

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
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let _lock = lock(workspace)?;

    let init = match &options.init {
        Some(file) => file.clone(),
        None => init::build(workspace)?,
    };
    let source = Source::find(workspace, options)?;
    let stamp = Stamp::of(&source, &init, options.compress)?;
    let what = if stamp.is_on(&directory) {
        "is up to date"
    } else {
        Output::make(&source, &init, options.compress)?.write(&directory)?;
        stamp.put_on(&directory)?;
        "is built"
    };
    println!("guest: {} {what} ({:.1} s)", directory.display(), started.elapsed().as_secs_f32());
    Ok(directory)
}

/// The names of the files that differ between two images.
pub(crate) fn differing(one: &Path, other: &Path) -> Result<Vec<&'static str>> {
    let read = |path: PathBuf| fs::read(&path).with_context(|| format!("cannot read {}", path.display()));
    let mut names = Vec::new();
    for name in output::FILES {
        if read(one.join(name))? != read(other.join(name))? {
            names.push(name);
        }
    }
    Ok(names)
}

/// What of the image in `directory` is larger than it may be.
pub(crate) fn too_large(directory: &Path) -> Result<Vec<String>> {
    output::too_large(directory)
}

/// Two builds at once would tear each other's files; the second waits for the first.
fn lock(workspace: &Workspace) -> Result<File> {
    let path = workspace.target.join("guest.lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}
