//! Plugging and unplugging.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use futures::future::join_all;
use vc_device::{Access, BlockSpec, CharacterSpec, GuestLocation};
use vc_types::{Deadline, DeviceId, DeviceNumber, GuestPath, HostPath};

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
    BlockSpec { serial, ..BlockSpec::new(device(id), file, name, Access::ReadOnly) }
}

fn device(id: &str) -> DeviceId {
    id.parse().expect("an id")
}

async fn plug(machine: &impl Machine, id: &str, image: &Path) -> Result<GuestLocation, PlugError> {
    machine.plug(&disk(id, image).into(), Deadline::after(PATIENCE)).await
}

pub(super) async fn a_device_has_one_place<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec, image: &Path) {
    let machine = launch(hypervisor, spec).await;
    let place = plug(&machine, "d0", image).await.expect("it plugs");
    let other = plug(&machine, "d1", image).await.expect("it plugs");
    assert_ne!(place, other, "two devices, two places");
    let twice = plug(&machine, "d0", image).await;
    assert!(matches!(twice, Err(PlugError::Port { .. })), "{twice:?}");
    let unknown = machine.unplug(&device("nope"), Deadline::after(PATIENCE)).await;
    assert!(matches!(unknown, Err(UnplugError::NotPlugged { .. })), "{unknown:?}");
    machine.stop(Deadline::after(PATIENCE)).await.expect("it stops");
}

pub(super) async fn disks_find_room_when_ports_are_taken<H: Hypervisor>(
    hypervisor: &H,
    spec: &MachineSpec,
    image: &Path,
) {
    let machine = launch(hypervisor, spec).await;
    let mut places = BTreeSet::new();
    for n in 0..spec.hotplug_ports + 3 {
        places.insert(plug(&machine, &format!("d{n}"), image).await.expect("there is room"));
    }
    assert_eq!(places.len(), usize::from(spec.hotplug_ports) + 3, "a place each");
    let ports = places.iter().filter(|place| matches!(place, GuestLocation::Pci(_))).count();
    assert!(ports < usize::from(spec.hotplug_ports), "disks leave a port to what needs one");
    machine.stop(Deadline::after(PATIENCE)).await.expect("it stops");
}

pub(super) async fn many_at_once_have_a_place_each<H: Hypervisor>(
    hypervisor: &H,
    spec: &MachineSpec,
    image: &Path,
) {
    let machine = launch(hypervisor, spec).await;
    let ids: Vec<_> = (0..16).map(|n| format!("d{n}")).collect();
    let plugged = join_all(ids.iter().map(|id| plug(&machine, id, image))).await;
    let places: BTreeSet<_> = plugged.into_iter().map(|place| place.expect("it plugs")).collect();
    assert_eq!(places.len(), ids.len(), "a place each");
    machine.stop(Deadline::after(PATIENCE)).await.expect("it stops");
}

pub(super) async fn what_nobody_can_plug_is_refused<H: Hypervisor>(
    hypervisor: &H,
    spec: &MachineSpec,
    image: &Path,
) {
    let machine = launch(hypervisor, spec).await;
    let null = CharacterSpec {
        id: device("null"),
        number: DeviceNumber::new(1, 3).expect("a number"),
        path: GuestPath::new("/dev/null").expect("an absolute path"),
        mode: None,
        uid: None,
        gid: None,
    };
    let refused = machine.plug(&null.into(), Deadline::after(PATIENCE)).await;
    assert!(matches!(refused, Err(PlugError::Unsupported { .. })), "{refused:?}");
    plug(&machine, "null", image).await.expect("the name is still free");
    machine.stop(Deadline::after(PATIENCE)).await.expect("it stops");
}

pub(super) async fn a_stopped_machine_plugs_nothing<H: Hypervisor>(
    hypervisor: &H,
    spec: &MachineSpec,
    image: &Path,
) {
    let machine = launch(hypervisor, spec).await;
    machine.stop(Deadline::after(PATIENCE)).await.expect("it stops");
    let late = plug(&machine, "late", image).await;
    assert!(matches!(late, Err(PlugError::MachineGone { .. })), "{late:?}");
}

/// A plugged device can be unplugged, and its name and place be used again. Needs a booted guest that
/// answers unplug requests.
///
/// # Panics
/// When it does not hold.
pub async fn unplugged_means_free_again<M: Machine>(machine: &M, image: &Path) {
    let place = plug(machine, "again", image).await.expect("it plugs");
    machine.unplug(&device("again"), Deadline::after(PATIENCE)).await.expect("it unplugs");
    let second = plug(machine, "again", image).await.expect("it plugs again");
    assert_eq!(place, second, "the lowest free place is taken");
    machine.unplug(&device("again"), Deadline::after(PATIENCE)).await.expect("it unplugs again");
}
