//! What this host can do. A question that a test asks prints the reason when the answer is no.

use std::fs::{self, File};

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

/// The accelerator that machines of tests are to have: `cargo xtask integration --accel` sets `VC_ACCEL`.
pub fn accelerator() -> String {
    std::env::var("VC_ACCEL").unwrap_or_else(|_| "auto".to_owned())
}

fn opens(device: &str) -> bool {
    File::options().read(true).write(true).open(device).is_ok()
}
