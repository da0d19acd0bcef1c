//! What every adapter owes its callers, as tests that run on the fake and on the real thing.
//!
//! Each function panics when the obligation does not hold. They want a spec with at least two
//! hot-plug ports, and an image that may be opened for reading.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vc_device::{Access, BlockSpec};
use vc_types::{Deadline, HostPath};

use crate::{ExitCause, Hotplug, Hypervisor, Machine, MachineSpec, PlugError, UnplugError};

/// Ample for a slow machine; reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs every obligation that needs nothing of the guest.
///
/// # Panics
/// When one does not hold.
pub async fn run<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec, image: &Path) {
    stop_is_final_and_may_be_repeated(hypervisor, spec).await;
    exits_are_told_to_everyone(hypervisor, spec).await;
    a_device_has_one_port(hypervisor, spec, image).await;
    full_ports_refuse(hypervisor, spec, image).await;
    a_stopped_machine_plugs_nothing(hypervisor, spec, image).await;
}

/// A disk of the name `id`, read-only.
///
/// # Panics
/// When `image` cannot be opened or `id` is none.
pub fn disk(id: &str, image: &Path) -> BlockSpec {
    let file = Arc::new(File::open(image).expect("a readable image"));
    let name = HostPath::new(image).expect("an absolute path");
    let serial = Some(id.parse().expect("a serial"));
    BlockSpec { serial, ..BlockSpec::new(id.parse().expect("an id"), file, name, Access::ReadOnly) }
}

async fn launch<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec) -> H::Machine {
    hypervisor.launch(spec, Deadline::after(PATIENCE)).await.expect("the machine launches")
}

async fn stop_is_final_and_may_be_repeated<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec) {
    let machine = launch(hypervisor, spec).await;
    let first = machine.stop(Deadline::after(PATIENCE)).await.expect("it stops");
    let second = machine.stop(Deadline::after(PATIENCE)).await.expect("it has stopped");
    assert_eq!(first, second, "a second stop tells the same end");
}

async fn exits_are_told_to_everyone<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec) {
    let machine = launch(hypervisor, spec).await;
    let stop = machine.stop(Deadline::after(PATIENCE));
    let (one, two, stopped) = tokio::join!(machine.exited(), machine.exited(), stop);
    assert_eq!(one, two);
    assert_eq!(one, stopped.expect("it stops"));
    assert_ne!(one.cause, ExitCause::Lost);
}

async fn a_device_has_one_port<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec, image: &Path) {
    let machine = launch(hypervisor, spec).await;
    let path = machine.plug_block(&disk("d0", image), Deadline::after(PATIENCE)).await.expect("it plugs");
    let other = machine.plug_block(&disk("d1", image), Deadline::after(PATIENCE)).await.expect("it plugs");
    assert_ne!(path, other, "two devices, two places");
    let twice = machine.plug_block(&disk("d0", image), Deadline::after(PATIENCE)).await;
    assert!(matches!(twice, Err(PlugError::Port { .. })), "{twice:?}");
    let unknown = machine.unplug(&"nope".parse().expect("an id"), Deadline::after(PATIENCE)).await;
    assert!(matches!(unknown, Err(UnplugError::NotPlugged { .. })), "{unknown:?}");
    machine.stop(Deadline::after(PATIENCE)).await.expect("it stops");
}

async fn full_ports_refuse<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec, image: &Path) {
    let machine = launch(hypervisor, spec).await;
    for n in 0..spec.hotplug_ports {
        let disk = disk(&format!("d{n}"), image);
        machine.plug_block(&disk, Deadline::after(PATIENCE)).await.expect("a port is free");
    }
    let more = machine.plug_block(&disk("more", image), Deadline::after(PATIENCE)).await;
    assert!(matches!(more, Err(PlugError::Port { .. })), "{more:?}");
    machine.stop(Deadline::after(PATIENCE)).await.expect("it stops");
}

async fn a_stopped_machine_plugs_nothing<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec, image: &Path) {
    let machine = launch(hypervisor, spec).await;
    machine.stop(Deadline::after(PATIENCE)).await.expect("it stops");
    let late = machine.plug_block(&disk("late", image), Deadline::after(PATIENCE)).await;
    assert!(matches!(late, Err(PlugError::MachineGone { .. })), "{late:?}");
}

/// A plugged device can be unplugged, and its name and port be used again. Needs a booted guest that
/// answers unplug requests.
///
/// # Panics
/// When it does not hold.
pub async fn unplugged_means_free_again<M: Machine>(machine: &M, image: &Path) {
    let deadline = || Deadline::after(PATIENCE);
    let path = machine.plug_block(&disk("again", image), deadline()).await.expect("it plugs");
    machine.unplug(&"again".parse().expect("an id"), deadline()).await.expect("it unplugs");
    let second = machine.plug_block(&disk("again", image), deadline()).await.expect("it plugs again");
    assert_eq!(path, second, "the lowest free port is taken");
    machine.unplug(&"again".parse().expect("an id"), deadline()).await.expect("it unplugs again");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Accelerator;
    use crate::fake::FakeHypervisor;
    use std::num::NonZeroU8;
    use vc_types::MiB;

    #[tokio::test]
    async fn the_fake_meets_its_obligations() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let path = HostPath::new(image.path()).unwrap();
        let spec = MachineSpec {
            id: "fake".parse().unwrap(),
            vcpus: NonZeroU8::MIN,
            memory: MiB::new(256).unwrap(),
            accelerator: Accelerator::Tcg,
            kernel: path.clone(),
            initrd: path.clone(),
            kernel_params: Vec::new(),
            hotplug_ports: 3,
            runtime_dir: path,
        };
        let fake = FakeHypervisor::default();
        run(&fake, &spec, image.path()).await;
        let machine = launch(&fake, &spec).await;
        unplugged_means_free_again(&machine, image.path()).await;
        drop(machine);
        assert!(fake.machines().is_empty(), "a dropped machine ends");
    }
}
