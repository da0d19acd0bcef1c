//! Which accelerator a machine gets.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Group};
use vc_hypervisor::{Accelerator, LaunchError};

const KVM: &str = "/dev/kvm";

/// What runs the guest, decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chosen {
    Kvm,
    Tcg,
}

/// Decides `wanted` on this host.
///
/// That `/dev/kvm` opens is no proof: without hardware virtualization in the CPU, the machine would
/// hang. So [`Accelerator::Auto`] asks for both.
pub(crate) fn choose(wanted: Accelerator) -> Result<Chosen, LaunchError> {
    let refuse = |reason| Err(LaunchError::NoKvm { reason });
    match wanted {
        Accelerator::Tcg => Ok(Chosen::Tcg),
        Accelerator::Auto if offers_virtualization() && open_kvm().is_ok() => Ok(Chosen::Kvm),
        Accelerator::Auto => Ok(Chosen::Tcg),
        Accelerator::Kvm => match open_kvm() {
            Err(error) => refuse(explain(&error)),
            Ok(_) if !offers_virtualization() => refuse(
                "the CPU offers no hardware virtualization (no vmx or svm in /proc/cpuinfo); use --accel tcg"
                    .into(),
            ),
            Ok(_) => Ok(Chosen::Kvm),
        },
    }
}

fn open_kvm() -> io::Result<File> {
    File::options().read(true).write(true).open(KVM)
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{KVM} does not exist; load kvm_intel or kvm_amd, or use --accel tcg")
        }
        io::ErrorKind::PermissionDenied => match group_of(Path::new(KVM)) {
            Some(group) => {
                format!("no right to open {KVM}; become a member of group {group}, or use --accel tcg")
            }
            None => format!("no right to open {KVM}; use --accel tcg"),
        },
        _ => format!("{KVM} does not open ({error}); use --accel tcg"),
    }
}

/// The group that owns `path`, by name where it has one.
fn group_of(path: &Path) -> Option<String> {
    let gid = std::fs::metadata(path).ok()?.gid();
    let name = Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name);
    Some(name.unwrap_or_else(|| gid.to_string()))
}

fn offers_virtualization() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| lists_virtualization(&text))
}

/// Whether the flags in the text of `/proc/cpuinfo` name Intel's or AMD's virtualization.
fn lists_virtualization(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
    flags.flat_map(str::split_whitespace).any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualization_is_read_from_the_flags_only() {
        assert!(lists_virtualization("model name : x\nflags\t\t: fpu svm sse\n"));
        assert!(lists_virtualization("flags : fpu vmx\n"));
        assert!(!lists_virtualization("flags : fpu svm_lock\nvmx flags : ept\nbugs : vmx\n"));
    }

    #[test]
    fn missing_rights_name_the_group() {
        let text = explain(&io::ErrorKind::NotFound.into());
        assert!(text.contains("/dev/kvm does not exist"), "{text}");
        assert_eq!(group_of(Path::new("/")).as_deref(), Some("root"));
        assert_eq!(group_of(Path::new("/nonexistent")), None);
    }
}
