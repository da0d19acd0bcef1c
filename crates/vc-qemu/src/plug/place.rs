//! A place as the properties that `device_add` wants.

use serde_json::{Map, Value, json};
use vc_device::{DeviceSpec, Place, PmemFrontend, PortKind};

use crate::devices::{Taken, Wanted};

/// Adds what puts a device in its place to its properties. A memory slot is QEMU's to choose.
pub(crate) fn put(taken: Taken, mut properties: Value) -> Value {
    let Some(place) = taken.place else { return properties };
    let bus = place.bus();
    let at = match place {
        Place::RootPort(_) | Place::SwitchPort(_) => json!({"bus": bus}),
        Place::BridgePort(slot) => json!({"bus": bus, "addr": format!("{:#x}", slot.slot().device())}),
        Place::ScsiUnit(unit) => {
            json!({"bus": bus, "channel": 0, "scsi-id": unit.target(), "lun": unit.unit()})
        }
    };
    if let (Value::Object(properties), Value::Object(at)) = (&mut properties, at) {
        properties.extend(at);
    }
    properties
}

/// Properties without those that are not given.
pub(crate) fn given(properties: Value) -> Value {
    match properties {
        Value::Object(map) => {
            Value::Object(map.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>())
        }
        other => other,
    }
}

/// What kind of place a device needs, or why it has none.
pub(crate) fn wanted(spec: &DeviceSpec) -> Result<Wanted, &'static str> {
    match spec {
        DeviceSpec::Block(_) | DeviceSpec::Partitioned(_) => Ok(Wanted::Disk),
        DeviceSpec::Pmem(pmem) => Ok(match pmem.frontend() {
            PmemFrontend::Nvdimm => Wanted::PmemSlot,
            PmemFrontend::VirtioPmem => Wanted::PmemPort,
        }),
        DeviceSpec::VfioPci(_)
        | DeviceSpec::VhostUserBlk(_)
        | DeviceSpec::VhostUserFs(_)
        | DeviceSpec::Network(_)
        | DeviceSpec::SerialPort(_) => Ok(Wanted::Port(PortKind::RootPort)),
        DeviceSpec::Character(_) => {
            Err("a character device is made by the agent in the guest; there is nothing to plug")
        }
        DeviceSpec::VfioAp(_) => Err("cryptographic queues are of IBM Z, and this machine is x86-64"),
        DeviceSpec::Vsock(_) => Err("a machine has one vsock device, from its launch on"),
    }
}
