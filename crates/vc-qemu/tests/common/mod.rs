//! What the tests with a real QEMU share.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vc_hypervisor::{Hypervisor, MachineSpec};
use vc_qemu::{Qemu, QemuMachine};
use vc_tests::{GuestImage, Leftovers};
use vc_types::{Deadline, HostPath};

/// Ample under emulation on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

pub(crate) fn spec(image: &GuestImage, leftovers: &Leftovers) -> MachineSpec {
    let path = |path: &Path| HostPath::new(path).unwrap();
    let dir = path(leftovers.runtime_dir());
    MachineSpec::new("test".parse().unwrap(), path(&image.kernel), path(&image.initrd), dir)
}

pub(crate) async fn launch(image: &GuestImage, leftovers: &Leftovers) -> QemuMachine {
    Qemu::default().launch(&spec(image, leftovers), soon()).await.unwrap()
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}
