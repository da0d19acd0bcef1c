//! The small kernel: built from the distribution's kernel source with only what a guest of `vc` needs, and no modules.
//!
//! It costs some minutes to build. The build is kept until the source package, the configuration or the compiler changes.
//! `cargo xtask bench boot --guest target/guest-small` tells what it gains.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use vc_image::debian::{KERNEL_SOURCE, Package};
use vc_image::{KernelSource, sha256};

use crate::apt::{self, Need};
use crate::process;
use crate::workspace::Workspace;

/// What the kernel has beyond `make tinyconfig`.
const CONFIG: &str = include_str!("small/kernel.config");

/// What building a kernel takes.
const PACKAGES: [Need; 6] = [
    Need { program: "make", package: "make" },
    Need { program: "flex", package: "flex" },
    Need { program: "bison", package: "bison" },
    Need { program: "bc", package: "bc" },
    Need { program: "xz", package: "xz-utils" },
    Need { program: "/usr/include/gelf.h", package: "libelf-dev" },
];

/// The list of what is built in.
const BUILT_IN: &str = "modules.builtin";

/// Builds the kernel unless the one at hand is from the same source, configuration and compiler.
pub(super) fn build(workspace: &Workspace, update: bool) -> Result<KernelSource> {
    let package = super::fetch(&KERNEL_SOURCE, &workspace.target.join("kernel-source"), update)?;
    let compiler = process::text(Command::new("gcc").arg("--version"))?;
    let origin = json!({
        "package": package.field("Package")?,
        "version": package.field("Version")?,
        "config_sha256": sha256(CONFIG.as_bytes()),
        "compiler": compiler.lines().next(),
    });
    let directory = workspace.target.join("kernel-small");
    let (vmlinux, stamp) = (directory.join("vmlinux"), directory.join("origin.json"));
    let modules = directory.join("modules");
    let kernel = KernelSource::Files {
        kernel: vmlinux.clone(),
        modules: Some(modules.clone()),
        origin: origin.clone(),
    };
    let is_whole = vmlinux.is_file() && modules.join(BUILT_IN).is_file();
    if is_whole && fs::read(&stamp).is_ok_and(|text| text == origin.to_string().as_bytes()) {
        return Ok(kernel);
    }
    apt::install(&PACKAGES)?;
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let started = Instant::now();
    println!("guest: building the small kernel, which takes some minutes");
    fs::create_dir_all(&modules).with_context(|| format!("cannot make {}", modules.display()))?;
    compile(&package, &directory, &vmlinux, &modules)?;
    fs::write(&stamp, origin.to_string()).with_context(|| format!("cannot write {}", stamp.display()))?;
    println!("guest: the small kernel is built ({:.0} s)", started.elapsed().as_secs_f32());
    Ok(kernel)
}

/// Compiles in a directory that goes afterwards: sources and objects take 2 GB.
fn compile(package: &Package, directory: &Path, vmlinux: &Path, modules: &Path) -> Result<()> {
    let work = tempfile::tempdir_in(directory).context("cannot make a temporary directory")?;
    println!("guest: unpacking {}", package.path().file_name().unwrap_or_default().display());
    let source = package.unpack_source(work.path())?;
    let objects = work.path().join("objects");
    fs::create_dir(&objects)?;
    configure(&source, &objects, &work.path().join("log"))?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    println!("guest: compiling with {jobs} jobs");
    make(&source, &objects, &work.path().join("log"), &[&format!("-j{jobs}"), "vmlinux"])?;
    fs::copy(objects.join(BUILT_IN), modules.join(BUILT_IN)).context("the build left no list of modules")?;
    // Symbols and relocations are three quarters of it, and nobody reads them in the guest.
    let stripped = work.path().join("stripped");
    process::output(Command::new("strip").arg("-o").arg(&stripped).arg(objects.join("vmlinux")))?;
    fs::rename(&stripped, vmlinux).with_context(|| format!("cannot write {}", vmlinux.display()))
}

/// Merges the configuration into `tinyconfig`, and sees that all of it was taken: an option whose dependencies are
/// missing is otherwise dropped without a word.
fn configure(source: &Path, objects: &Path, log: &Path) -> Result<()> {
    let fragment = objects.join("fragment");
    fs::write(&fragment, CONFIG).context("cannot write the configuration")?;
    make(source, objects, log, &["tinyconfig"])?;
    let config = objects.join(".config");
    let mut merge = Command::new(source.join("scripts/kconfig/merge_config.sh"));
    process::output(merge.arg("-m").arg("-O").arg(objects).args([&config, &fragment]).current_dir(source))?;
    make(source, objects, log, &["olddefconfig"])?;
    let taken = fs::read_to_string(&config).context("make olddefconfig left no .config")?;
    let lost = lost(CONFIG, &taken);
    ensure!(lost.is_empty(), "this kernel's source does not take these options: {}", lost.join(", "));
    Ok(())
}

/// The lines of `wanted` that `taken` does not have. An option that is off may also be absent.
fn lost<'a>(wanted: &'a str, taken: &str) -> Vec<&'a str> {
    let has = |line: &str| taken.lines().any(|other| other == line);
    let is_lost = |line: &&str| match line
        .strip_prefix("# CONFIG_")
        .and_then(|rest| rest.strip_suffix(" is not set"))
    {
        Some(option) => taken.lines().any(|other| other.starts_with(&format!("CONFIG_{option}="))),
        None => line.starts_with("CONFIG_") && !has(line),
    };
    wanted.lines().filter(is_lost).collect()
}

/// Runs the kernel's make at low priority. Who built it, where and when is left out, so that the same source gives the
/// same bytes.
fn make(source: &Path, objects: &Path, log: &Path, arguments: &[&str]) -> Result<()> {
    let file = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
    let mut command = Command::new("nice");
    command.args(["-n", "10", "make", "--silent", "-C"]).arg(source);
    let mut output = std::ffi::OsString::from("O=");
    output.push(objects);
    command.arg(output).args(arguments);
    command.env("KBUILD_BUILD_TIMESTAMP", "1970-01-01").env("KBUILD_BUILD_USER", "vc");
    command.env("KBUILD_BUILD_HOST", "vc").env("KBUILD_BUILD_VERSION", "1");
    // Cargo tells its own jobs to every make below it, and this one would wait for them.
    command.env_remove("MAKEFLAGS").env_remove("CARGO_MAKEFLAGS");
    command.stdout(file.try_clone()?).stderr(file);
    process::show(&mut command).with_context(|| tail(log))
}

/// The end of what make wrote, where its error stands.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_was_dropped_is_told() {
        let wanted =
            "# a comment\nCONFIG_A=y\nCONFIG_B=\"x\"\n# CONFIG_C is not set\n# CONFIG_D is not set\n";
        let taken = "CONFIG_A=y\n# CONFIG_C is not set\n";
        assert_eq!(lost(wanted, taken), ["CONFIG_B=\"x\""]);
        let other = "CONFIG_A=m\nCONFIG_B=\"x\"\nCONFIG_D=y\n";
        assert_eq!(lost(wanted, other), ["CONFIG_A=y", "# CONFIG_D is not set"]);
    }

    #[test]
    fn the_configuration_names_each_option_once() {
        let option =
            |line: &str| Some(line.strip_prefix("# ").unwrap_or(line).split_once(['=', ' '])?.0.to_owned());
        let mut options: Vec<_> =
            CONFIG.lines().filter_map(option).filter(|name| name.starts_with("CONFIG_")).collect();
        let all = options.len();
        options.sort();
        options.dedup();
        assert_eq!(options.len(), all);
    }
}
