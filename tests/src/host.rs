//! What this host can do. A question that a test asks prints the reason when the answer is no.

use std::fs::{self, File};
use std::process::Command;

use crate::skip;

/// Whether machines can run on the processor itself, found out without a word.
///
/// As `vc` decides it: the device must open, and the processor must have virtualization.
pub fn has_kvm() -> bool {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = processor.lines().filter(|line| line.starts_with("flags"));
    let virtualizes = flags.flat_map(str::split_whitespace).any(|flag| matches!(flag, "vmx" | "svm"));
    virtualizes && opens("/dev/kvm")
}

/// Whether machines can run on the processor itself.
pub fn kvm() -> bool {
    has_kvm() || {
        skip("no KVM on this host (no /dev/kvm that opens, or a processor without vmx and svm)");
        false
    }
}

/// Whether the kernel serves vsock to machines.
pub fn vhost_vsock() -> bool {
    opens("/dev/vhost-vsock") || {
        skip("/dev/vhost-vsock does not open");
        false
    }
}

/// Whether the kernel offers IOMMUFD.
pub fn iommufd() -> bool {
    opens("/dev/iommu") || {
        skip("no IOMMUFD on this host (/dev/iommu does not open; Linux 6.2 may have it)");
        false
    }
}

/// Whether the kernel has device mapper with this target, such as `verity`.
pub fn device_mapper(target: &str) -> bool {
    if !opens("/dev/mapper/control") {
        skip("/dev/mapper/control does not open: no device mapper on this host, or not for this user");
        return false;
    }
    let Ok(targets) = Command::new("dmsetup").arg("targets").output() else {
        skip("dmsetup is not installed");
        return false;
    };
    let targets = String::from_utf8_lossy(&targets.stdout).into_owned();
    targets.lines().any(|line| line.split_whitespace().next() == Some(target)) || {
        skip(&format!("the kernel's device mapper has no {target}; a module may be missing"));
        false
    }
}

/// The accelerator that machines of tests are to have: `cargo xtask integration --accel` sets `VC_ACCEL`.
pub fn accelerator() -> String {
    std::env::var("VC_ACCEL").unwrap_or_else(|_| "auto".to_owned())
}

fn opens(device: &str) -> bool {
    File::options().read(true).write(true).open(device).is_ok()
}
