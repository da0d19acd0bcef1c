//! `vc check`: what this host lacks, one line each, with the remedy.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::config::Config;
use crate::guest_image::{self, GuestImage};
use crate::oci::state::print;

/// How a thing is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// As it should be.
    Fine,
    /// Things work without, but worse.
    Better,
    /// Nothing works without.
    Missing,
}

struct Finding {
    verdict: Verdict,
    what: &'static str,
    text: String,
}

/// Prints what it finds; the exit code is 1 when something is missing.
pub(crate) fn check(config: &Config) -> ExitCode {
    let findings = [qemu(config), guest(config), kvm(), vsock(config)];
    for Finding { verdict, what, text } in &findings {
        let word = match verdict {
            Verdict::Fine => "ok",
            Verdict::Better => "better",
            Verdict::Missing => "missing",
        };
        // Where it cannot be printed, the exit code must do.
        let _ = print(&format!("{word:<8} {what:<12} {text}\n"));
    }
    let missing = findings.iter().any(|finding| finding.verdict == Verdict::Missing);
    if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn qemu(config: &Config) -> Finding {
    let what = "QEMU";
    let program = config.text("hypervisor.qemu.path");
    let version = Command::new(program).arg("--version").output().ok();
    let version = version.filter(|output| output.status.success());
    let first =
        version.and_then(|output| Some(String::from_utf8(output.stdout).ok()?.lines().next()?.to_owned()));
    match first {
        Some(text) => Finding { verdict: Verdict::Fine, what, text },
        None => Finding {
            verdict: Verdict::Missing,
            what,
            text: format!(
                "{program} does not run: apt-get install qemu-system-x86, or name another with --qemu"
            ),
        },
    }
}

fn guest(config: &Config) -> Finding {
    let what = "guest image";
    let missing = |why: String| Finding { verdict: Verdict::Missing, what, text: why };
    let image = match GuestImage::locate(config) {
        Ok(image) => image,
        Err(failure) => return missing(failure.line()),
    };
    for file in [&image.kernel, &image.initrd] {
        if let Err(error) = File::open(file.as_path()) {
            return missing(format!(
                "{file}: {error}: build it with `vc guest build`, or name one with --guest"
            ));
        }
    }
    Finding { verdict: Verdict::Fine, what, text: format!("{}, {}", image.kernel, image.initrd) }
}

fn kvm() -> Finding {
    let what = "KVM";
    let better = |why: &str| Finding { verdict: Verdict::Better, what, text: why.to_owned() };
    let path = "/dev/kvm";
    // The same proof that the accelerator `auto` asks for: the device opens, and the processor has the instructions.
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let capable = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    match opens(Path::new(path)) {
        Ok(()) if capable => Finding { verdict: Verdict::Fine, what, text: path.to_owned() },
        Ok(()) => better("machines are emulated: this processor shows no hardware virtualization; enable it"),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            better("machines are emulated: this user may not open /dev/kvm; become a member of the group kvm")
        }
        Err(_) => better("machines are emulated: there is no /dev/kvm; modprobe kvm_intel or kvm_amd"),
    }
}

fn vsock(config: &Config) -> Finding {
    let what = "vsock";
    let kernel = "/dev/vhost-vsock";
    if opens(Path::new(kernel)).is_ok() {
        return Finding { verdict: Verdict::Fine, what, text: kernel.to_owned() };
    }
    let daemon = guest_image::program(config.text("hypervisor.qemu.vsock_daemon"));
    match find(&daemon) {
        Some(program) => Finding { verdict: Verdict::Fine, what, text: program.display().to_string() },
        None => Finding {
            verdict: Verdict::Missing,
            what,
            text: format!(
                "neither {kernel} nor {}: modprobe vhost_vsock as root, or cargo install vhost-device-vsock",
                daemon.display()
            ),
        },
    }
}

fn opens(device: &Path) -> std::io::Result<()> {
    File::options().read(true).write(true).open(device).map(drop)
}

fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}
