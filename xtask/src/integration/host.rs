//! What a host can do, found out by trying, so that the reader knows at once what will be skipped.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;

/// One ability, or why the host lacks it.
type Ability = Result<String, String>;

/// What was found.
#[derive(Debug)]
pub(super) struct Facts {
    kernel: String,
    abilities: Vec<(&'static str, Ability)>,
}

impl Facts {
    /// Looks at this host.
    pub(super) fn gather() -> Self {
        let abilities = vec![
            ("root", root()),
            ("KVM", kvm()),
            ("vhost-vsock", opens("/dev/vhost-vsock")),
            ("IOMMU", iommu_groups()),
            ("VFIO", opens("/dev/vfio/vfio")),
            ("IOMMUFD", opens("/dev/iommu")),
            ("device mapper", opens("/dev/mapper/control")),
            ("loop devices", opens("/dev/loop-control")),
        ];
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        Self { kernel, abilities }
    }

    /// Whether machines can run on the processor itself.
    pub(super) fn has_kvm(&self) -> bool {
        self.abilities.iter().any(|(name, ability)| *name == "KVM" && ability.is_ok())
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "this host, Linux {}:", self.kernel)?;
        for (name, ability) in &self.abilities {
            match ability {
                Ok(what) => writeln!(f, "  {name:<14} yes: {what}")?,
                Err(why) => writeln!(f, "  {name:<14} no: {why}; tests that need it are skipped")?,
            }
        }
        Ok(())
    }
}

fn root() -> Ability {
    let user = rustix::process::geteuid();
    if user.is_root() { Ok("user 0".into()) } else { Err(format!("user {}", user.as_raw())) }
}

fn kvm() -> Ability {
    opens("/dev/kvm")?;
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = processor.lines().filter(|line| line.starts_with("flags")).flat_map(str::split_whitespace);
    match flags.into_iter().find(|flag| matches!(*flag, "vmx" | "svm")) {
        Some(flag) => Ok(format!("/dev/kvm, {flag}")),
        None => Err("the processor has neither vmx nor svm".into()),
    }
}

fn opens(device: &str) -> Ability {
    match File::options().read(true).write(true).open(device) {
        Ok(_) => Ok(device.to_owned()),
        Err(error) => Err(format!("{device}: {error}")),
    }
}

fn iommu_groups() -> Ability {
    let groups = Path::new("/sys/kernel/iommu_groups");
    let count = fs::read_dir(groups).map_err(|error| format!("{}: {error}", groups.display()))?.count();
    if count == 0 { Err("no IOMMU groups".into()) } else { Ok(format!("{count} groups")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_its_reason() {
        let facts = Facts {
            kernel: "6.1".into(),
            abilities: vec![("KVM", opens("/dev/no-such-device")), ("root", Ok("user 0".into()))],
        };
        assert!(!facts.has_kvm());
        let text = facts.to_string();
        assert!(text.contains("KVM            no: /dev/no-such-device: No such file"), "{text}");
        assert!(text.contains("root           yes: user 0"), "{text}");
    }
}
