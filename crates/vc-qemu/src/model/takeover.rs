//! Taking over a machine whose owner died at a bad moment: its handle is older than what is plugged.

use tokio::net::UnixStream;
use vc_device::DeviceSpec;
use vc_hypervisor::{Hotplug, conformance};

use super::world::{World, serve};
use super::{machine, patient, spec, specs};
use crate::devices::{Devices, DevicesRecord};
use crate::qmp::Qmp;
use crate::stock::take_stock;

async fn taken_over(world: &World, record: DevicesRecord) -> Devices {
    let (ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(serve(theirs, world.clone()));
    let qmp = Qmp::connect(ours, patient()).await.unwrap();
    let mut devices = Devices::try_from(record).unwrap();
    take_stock(&qmp, &mut devices, patient()).await.unwrap();
    devices
}

#[tokio::test]
async fn a_device_that_was_plugged_unheard_keeps_its_place() {
    let image = tempfile::NamedTempFile::new().unwrap();
    let disk = |name: &str| -> DeviceSpec { conformance::disk(name, image.path()).into() };
    let world = World::default();
    let machine = machine(&world, &spec()).await;
    machine.plug(&disk("d0"), patient()).await.unwrap();
    let without = machine.record();
    let place = machine.plug(&disk("d1"), patient()).await.unwrap();
    let with = machine.record();
    // The first one goes, so that the place is not the lowest that is free.
    machine.unplug(disk("d0").id(), patient()).await.unwrap();
    for (record, known) in [(without, false), (with, true)] {
        let devices = taken_over(&world, record).await;
        assert_eq!(devices.names().iter().map(ToString::to_string).collect::<Vec<_>>(), ["d1"]);
        let written = serde_json::to_value(devices.record(0)).unwrap();
        let plugged = &written["topology"]["plugged"];
        let expected = serde_json::json!([{"kind": "root-port", "index": 1, "device": "d1"}]);
        assert_eq!(*plugged, expected, "at {place}, known: {known}");
    }
}

#[tokio::test]
async fn what_was_behind_a_device_that_went_unheard_is_taken_away() {
    let image = tempfile::NamedTempFile::new().unwrap();
    for device in specs(image.path()) {
        let world = World::default();
        let machine = machine(&world, &spec()).await;
        machine.plug(&device, patient()).await.unwrap();
        let record = machine.record();
        world.lock().unwrap().lose(device.id());
        let devices = taken_over(&world, record).await;
        assert!(devices.names().is_empty(), "{device:?}");
        let world = world.lock().unwrap();
        assert!(world.backends.is_empty(), "{device:?} left {:?}", world.backends);
    }
}
