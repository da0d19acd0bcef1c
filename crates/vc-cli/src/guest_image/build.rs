//! `vc guest build`: the guest image, without a checkout.

use std::path::{Path, PathBuf};

use vc_image::debian::{KERNEL, Package};
use vc_image::{ImageError, ImageSpec, KernelSource, Outcome};

use crate::cli::{Global, GuestBuild, Machine};
use crate::config::Config;
use crate::failure::Failure;
use crate::oci::state::print;

/// The agent's program.
const AGENT: &str = "vc-guest";

/// Where it is installed, if not beside `vc`.
const PLACES: [&str; 2] = ["/usr/local/lib/vc", "/usr/lib/vc"];

/// Builds the image, unless it is already there, and says so.
pub(crate) fn build(global: &Global, options: &GuestBuild) -> Result<(), Failure> {
    let config = Config::load(global, &Machine::default())?;
    let directory = options.out.clone().map_or_else(|| super::directory(&config), Ok)?;
    let init = options.agent.clone().map_or_else(agent, Ok)?;
    let spec = ImageSpec { kernel: kernel(options)?, init, compress: options.compress };
    let what = match spec.build(&directory, &tell).map_err(failure)? {
        Outcome::UpToDate => "is up to date",
        Outcome::Built => "is built",
    };
    print(&format!("guest: {} {what}\n", directory.display()))
}

fn kernel(options: &GuestBuild) -> Result<KernelSource, Failure> {
    if let Some(kernel) = &options.kernel {
        return Ok(KernelSource::files(kernel.clone(), options.modules.clone()));
    }
    let package = Package::fetch(&KERNEL, &cache()?.join("kernel-package"), options.update, &tell);
    let package = package.map_err(|error| {
        let remedy = Failure::message("name a kernel of your own with --kernel and --modules");
        Failure::step("have Debian's kernel", error).and(&remedy)
    })?;
    Ok(KernelSource::Package(package))
}

/// The agent that is installed.
fn agent() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe().map_err(|error| Failure::step("find vc's own program", error))?;
    let beside = program.parent().unwrap_or(Path::new("/"));
    let places = std::iter::once(beside).chain(PLACES.map(Path::new));
    places.map(|place| place.join(AGENT)).find(|file| file.is_file()).ok_or_else(|| {
        let places = PLACES.join(" and ");
        Failure::message(format!(
            "there is no {AGENT} in {}, {places}: put a static one there, or name it with --agent",
            beside.display()
        ))
    })
}

/// Where what was downloaded is kept.
fn cache() -> Result<PathBuf, Failure> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    let none = || Failure::message("there is no place for downloads: set HOME or XDG_CACHE_HOME");
    Ok(cache.ok_or_else(none)?.join("vc"))
}

fn failure(error: ImageError) -> Failure {
    let is_of_agent = matches!(error, ImageError::Init { .. });
    let failure = Failure::step("build the guest image", error);
    let remedy = || Failure::message(format!("name a static {AGENT} with --agent"));
    if is_of_agent { failure.and(&remedy()) } else { failure }
}

/// What is under way; the result does not depend on whether it can be told.
fn tell(text: &str) {
    let _ = print(&format!("guest: {text}\n"));
}
