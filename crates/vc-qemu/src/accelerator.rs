//! Which accelerator a machine gets: facts about the host first, then the decision.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::unistd::{Gid, Group};
use vc_hypervisor::{Accelerator, LaunchError};

use crate::config::User;

const KVM: &str = "/dev/kvm";

/// What runs the guest, decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chosen {
    Kvm,
    Tcg,
}

/// Decides `wanted` on this host, for a QEMU that runs as `user`.
pub(crate) fn choose(wanted: Accelerator, user: Option<User>) -> Result<Chosen, LaunchError> {
    match wanted {
        // The host need not be looked at.
        Accelerator::Tcg => Ok(Chosen::Tcg),
        _ => decide(wanted, &Host::look(user)),
    }
}

/// The group besides its own that lets a user open `/dev/kvm`.
pub(crate) fn kvm_group() -> io::Result<Gid> {
    Ok(Gid::from_raw(std::fs::metadata(KVM)?.gid()))
}

/// What KVM takes.
#[derive(Debug)]
struct Host {
    /// How opening `/dev/kvm` went.
    opens: Result<(), io::Error>,
    /// The group that may open it, by name where it has one.
    group: Option<String>,
    /// Whether the processor offers hardware virtualization.
    virtualization: bool,
}

impl Host {
    fn look(user: Option<User>) -> Self {
        let opens = File::options().read(true).write(true).open(KVM).and_then(|file| match user {
            Some(user) => user_may_open(&file, user),
            None => Ok(()),
        });
        let group = kvm_group().ok().map(|gid| {
            let name = Group::from_gid(gid).ok().flatten().map(|group| group.name);
            name.unwrap_or_else(|| gid.to_string())
        });
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self { opens, group, virtualization: lists_virtualization(&cpuinfo) }
    }
}

/// A QEMU that runs as `user` is put into the device's group, so that is enough.
fn user_may_open(kvm: &File, user: User) -> io::Result<()> {
    let metadata = kvm.metadata()?;
    let (mode, both) = (metadata.mode(), 0o6);
    let owns = metadata.uid() == user.uid && mode >> 6 & both == both;
    // Nobody is put into root's group.
    let grouped = metadata.gid() != 0 && mode >> 3 & both == both;
    if owns || grouped || mode & both == both { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// That `/dev/kvm` opens is no proof: without hardware virtualization in the processor, the machine would
/// hang. So [`Accelerator::Auto`] asks for both.
fn decide(wanted: Accelerator, host: &Host) -> Result<Chosen, LaunchError> {
    let refuse = |reason| Err(LaunchError::NoKvm { reason });
    match (wanted, &host.opens) {
        (Accelerator::Tcg, _) => Ok(Chosen::Tcg),
        (Accelerator::Auto, Ok(())) if host.virtualization => Ok(Chosen::Kvm),
        (Accelerator::Auto, _) => Ok(Chosen::Tcg),
        (Accelerator::Kvm, Err(error)) => refuse(explain(error, host.group.as_deref())),
        (Accelerator::Kvm, Ok(())) if !host.virtualization => refuse(
            "the CPU offers no hardware virtualization (no vmx or svm in /proc/cpuinfo); use --accel tcg"
                .into(),
        ),
        (Accelerator::Kvm, Ok(())) => Ok(Chosen::Kvm),
    }
}

fn explain(error: &io::Error, group: Option<&str>) -> String {
    match (error.kind(), group) {
        (io::ErrorKind::NotFound, _) => {
            format!("{KVM} does not exist; load kvm_intel or kvm_amd, or use --accel tcg")
        }
        // Its group gives no rights that its owner, root, would not have anyway.
        (io::ErrorKind::PermissionDenied, Some("root") | None) => {
            format!("no right to open {KVM}, which only root may; give it a group, or use --accel tcg")
        }
        (io::ErrorKind::PermissionDenied, Some(group)) => {
            format!("no right to open {KVM}; become a member of group {group}, or use --accel tcg")
        }
        _ => format!("{KVM} does not open ({error}); use --accel tcg"),
    }
}

/// Whether the flags in the text of `/proc/cpuinfo` name Intel's or AMD's virtualization.
fn lists_virtualization(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
    flags.flat_map(str::split_whitespace).any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(opens: Result<(), io::ErrorKind>, group: &str, virtualization: bool) -> Host {
        Host { opens: opens.map_err(io::Error::from), group: Some(group.into()), virtualization }
    }

    fn refusal(host: &Host) -> String {
        decide(Accelerator::Kvm, host).unwrap_err().to_string()
    }

    #[test]
    fn virtualization_is_read_from_the_flags_only() {
        assert!(lists_virtualization("model name : x\nflags\t\t: fpu svm sse\n"));
        assert!(lists_virtualization("flags : fpu vmx\n"));
        assert!(!lists_virtualization("flags : fpu svm_lock\nvmx flags : ept\nbugs : vmx\n"));
    }

    #[test]
    fn auto_wants_both_the_device_and_the_processor() {
        let decide = |host: &Host| decide(Accelerator::Auto, host).unwrap();
        assert_eq!(decide(&host(Ok(()), "kvm", true)), Chosen::Kvm);
        assert_eq!(decide(&host(Ok(()), "kvm", false)), Chosen::Tcg);
        assert_eq!(decide(&host(Err(io::ErrorKind::PermissionDenied), "kvm", true)), Chosen::Tcg);
    }

    #[test]
    fn missing_rights_name_the_group() {
        let denied = refusal(&host(Err(io::ErrorKind::PermissionDenied), "kvm", true));
        assert!(denied.contains("become a member of group kvm"), "{denied}");
        let roots = refusal(&host(Err(io::ErrorKind::PermissionDenied), "root", true));
        assert!(roots.contains("only root may"), "{roots}");
        let absent = refusal(&host(Err(io::ErrorKind::NotFound), "kvm", true));
        assert!(absent.contains("/dev/kvm does not exist"), "{absent}");
        let processor = refusal(&host(Ok(()), "kvm", false));
        assert!(processor.contains("no vmx or svm"), "{processor}");
    }

    #[test]
    fn a_user_needs_the_device_to_be_open_to_a_group_or_to_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let user = User { uid: 4711, gid: 4712 };
        let may = |mode| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(file.path(), mode).unwrap();
            user_may_open(file.as_file(), user).is_ok()
        };
        assert!(may(0o666));
        assert!(!may(0o600));
    }
}
