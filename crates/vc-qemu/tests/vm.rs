//! The obligations of every hypervisor, held against a real QEMU; and what only a real one shows.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use vc_agent::{Connect, Connector};
use vc_hypervisor::{ExitCause, Hotplug, Hypervisor, Machine, MachineSpec, conformance};
use vc_qemu::{Qemu, QemuConfig, QemuMachine};
use vc_tests::{GuestImage, Layers, Leftovers};
use vc_types::{Deadline, HostPath};

const PATIENCE: Duration = Duration::from_secs(120);

fn spec(image: &GuestImage, dir: &Path) -> MachineSpec {
    let path = |path: &Path| HostPath::new(path).unwrap();
    let id = "test".parse().unwrap();
    let mut spec = MachineSpec::new(id, path(&image.kernel), path(&image.initrd), path(dir));
    spec.hotplug_ports = 3;
    spec.accelerator = vc_tests::host::accelerator().parse().unwrap();
    spec
}

async fn launch(image: &GuestImage, leftovers: &Leftovers) -> QemuMachine {
    let spec = spec(image, leftovers.runtime_dir());
    Qemu::default().launch(&spec, Deadline::after(PATIENCE)).await.unwrap()
}

#[tokio::test]
async fn qemu_meets_the_obligations_of_a_hypervisor() {
    let Some(image) = GuestImage::find() else { return };
    let leftovers = Leftovers::new();
    let layers = Layers::new();
    let disk = layers.layer("disk", |_| {});
    conformance::run(&Qemu::default(), &spec(&image, leftovers.runtime_dir()), &disk).await;
    leftovers.assert_none();
}

#[tokio::test]
async fn a_disk_is_plugged_unplugged_and_its_port_used_again() {
    let Some(image) = GuestImage::find() else { return };
    let leftovers = Leftovers::new();
    let layers = Layers::new();
    let disk = layers.layer("disk", |_| {});
    let machine = launch(&image, &leftovers).await;
    let qemu = leftovers.qemu().expect("QEMU runs");
    Connector::default().connect(machine.agent_address(), Deadline::after(PATIENCE)).await.unwrap();
    conformance::unplugged_means_free_again(&machine, &disk).await;
    let inode = disk.metadata().unwrap().ino();
    let open = |inode| {
        let fds = std::fs::read_dir(format!("/proc/{qemu}/fd")).unwrap().flatten();
        fds.filter_map(|fd| std::fs::metadata(fd.path()).ok()).filter(|file| file.ino() == inode).count()
    };
    assert_eq!(open(inode), 0, "an unplugged image is closed");
    machine.plug(&conformance::disk("seen", &disk).into(), Deadline::after(PATIENCE)).await.unwrap();
    assert!(open(inode) > 0, "a plugged image is open");
    machine.stop(Deadline::after(PATIENCE)).await.unwrap();
    leftovers.assert_none();
}

#[tokio::test]
async fn a_disk_that_cannot_be_opened_leaves_nothing_plugged() {
    let Some(image) = GuestImage::find() else { return };
    let leftovers = Leftovers::new();
    let machine = launch(&image, &leftovers).await;
    let layers = Layers::new();
    let disk = layers.layer("disk", |_| {});
    // Open for reading only, and asked to be written to: QEMU refuses the backend.
    let mut refused = conformance::disk("d0", &disk);
    refused.access = vc_device::Access::ReadWrite;
    let error = machine.plug(&refused.into(), Deadline::after(PATIENCE)).await.unwrap_err();
    assert!(matches!(error, vc_hypervisor::PlugError::Refused { step: "open the image", .. }), "{error:?}");
    // Name, image and port are free again, which they would not be if anything had stayed.
    let path = machine.plug(&conformance::disk("d0", &disk).into(), Deadline::after(PATIENCE)).await.unwrap();
    assert_eq!(path.to_string(), "08/00");
    machine.stop(Deadline::after(PATIENCE)).await.unwrap();
    leftovers.assert_none();
}

#[tokio::test]
async fn a_killed_qemu_is_told_within_a_tenth_of_a_second() {
    let Some(image) = GuestImage::find() else { return };
    let leftovers = Leftovers::new();
    let machine = launch(&image, &leftovers).await;
    let qemu = leftovers.qemu().expect("QEMU runs");
    let killed = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(qemu.try_into().unwrap()), nix::sys::signal::SIGKILL)
        .unwrap();
    let exit = machine.exited().await;
    let told = killed.elapsed();
    assert_eq!(exit.cause, ExitCause::Signaled(9));
    assert!(told < Duration::from_millis(500), "told after {told:?}");
    drop(machine);
    leftovers.assert_none();
}

#[tokio::test]
async fn a_dead_helper_ends_the_machine_and_is_named() {
    let Some(image) = GuestImage::find() else { return };
    let leftovers = Leftovers::new();
    let machine = launch(&image, &leftovers).await;
    let Some(daemon) = leftovers.process("vhost-device-vsock") else {
        return vc_tests::skip("this host serves vsock in the kernel");
    };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.try_into().unwrap()), nix::sys::signal::SIGKILL)
        .unwrap();
    let exit = tokio::time::timeout(PATIENCE, machine.exited()).await.expect("the machine ends");
    assert_eq!(exit.cause, ExitCause::Signaled(9));
    assert!(exit.stderr_tail.contains("vhost-device-vsock"), "{exit}");
    drop(machine);
    leftovers.assert_none();
}

#[tokio::test]
async fn a_hung_qemu_delays_a_launch_no_longer_than_its_deadline() {
    let Some(image) = GuestImage::find() else { return };
    let leftovers = Leftovers::new();
    let program = leftovers.runtime_dir().join("qemu");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let qemu = Qemu::new(QemuConfig { program: program.clone(), ..QemuConfig::default() });
    let started = Instant::now();
    let spec = spec(&image, leftovers.runtime_dir());
    let error = qemu.launch(&spec, Deadline::after(Duration::from_secs(2))).await.unwrap_err();
    assert!(matches!(error, vc_hypervisor::LaunchError::Control(_)), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    std::fs::remove_file(program).unwrap();
    leftovers.assert_none();
}
