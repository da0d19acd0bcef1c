//! What is owed about devices.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use vc_device::{Access, BlockSpec};
use vc_types::{Deadline, HostPath};

use super::{PATIENCE, launch};
use crate::{Hotplug, Hypervisor, Machine, MachineSpec, PlugError, UnplugError};

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

pub(super) async fn a_device_has_one_port<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec, image: &Path) {
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

pub(super) async fn full_ports_refuse<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec, image: &Path) {
    let machine = launch(hypervisor, spec).await;
    for n in 0..spec.hotplug_ports {
        let disk = disk(&format!("d{n}"), image);
        machine.plug_block(&disk, Deadline::after(PATIENCE)).await.expect("a port is free");
    }
    let more = machine.plug_block(&disk("more", image), Deadline::after(PATIENCE)).await;
    assert!(matches!(more, Err(PlugError::Port { .. })), "{more:?}");
    machine.stop(Deadline::after(PATIENCE)).await.expect("it stops");
}

pub(super) async fn a_stopped_machine_plugs_nothing<H: Hypervisor>(
    hypervisor: &H,
    spec: &MachineSpec,
    image: &Path,
) {
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
