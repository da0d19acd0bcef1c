//! What there is in a QEMU that is taken over, and is not in its handle.

use std::collections::BTreeSet;

use qapi::qmp;
use serde_json::Value;
use vc_device::Place;
use vc_types::{Deadline, DeviceId};

use crate::control::{PERIPHERALS, frontends};
use crate::devices::Devices;
use crate::qmp::{Qmp, QmpError};

/// Makes known what is plugged and not in the handle, so that it can be unplugged and nothing is plugged into its
/// place; and takes away what was behind devices that are gone, and images that no device has.
pub(crate) async fn take_stock(qmp: &Qmp, devices: &mut Devices, deadline: Deadline) -> Result<(), QmpError> {
    let plugged = frontends(qmp, deadline).await?;
    release_gone(qmp, devices, &plugged, deadline).await?;
    devices.keep_only(&plugged);
    for device in devices.in_no_place() {
        let spot = Spot::of(qmp, &device, deadline).await?;
        devices.put(&device, |place| spot.is(place));
    }
    delete_unused_images(qmp, &plugged, deadline).await
}

/// Takes away what was behind the devices that went meanwhile: their names are to be free again.
async fn release_gone(
    qmp: &Qmp,
    devices: &Devices,
    plugged: &BTreeSet<DeviceId>,
    deadline: Deadline,
) -> Result<(), QmpError> {
    for device in devices.names().difference(plugged) {
        let commands = devices.undo(device).unwrap_or_default().commands;
        for answer in qmp.pipeline(commands, deadline).await {
            match answer {
                Ok(_) => {}
                // The last owner may have come as far.
                Err(error @ QmpError::Refused { .. }) => {
                    tracing::debug!(%device, %error, "nothing to take away");
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

async fn delete_unused_images(
    qmp: &Qmp,
    plugged: &BTreeSet<DeviceId>,
    deadline: Deadline,
) -> Result<(), QmpError> {
    let nodes = qmp.query(qmp::query_named_block_nodes { flat: Some(true) }, deadline).await?;
    let nodes = nodes.as_array().into_iter().flatten();
    let names = nodes.filter_map(|node| node.get("node-name").and_then(Value::as_str));
    let unused =
        names.filter_map(|name| name.parse::<DeviceId>().ok()).filter(|name| !plugged.contains(name));
    for node in unused.collect::<BTreeSet<_>>() {
        let delete = qmp::blockdev_del { node_name: node.to_string() };
        if let Err(error) = qmp.execute(delete, deadline).await {
            tracing::warn!(%node, %error, "an image that no device has stays open");
        }
    }
    Ok(())
}

/// Where QEMU has a device: the name of its bus, and its address there. What a device of its kind does not have is
/// `None`.
struct Spot {
    bus: Option<String>,
    /// Device and function, as one number.
    address: Option<u64>,
    target: Option<u64>,
    unit: Option<u64>,
}

impl Spot {
    async fn of(qmp: &Qmp, device: &DeviceId, deadline: Deadline) -> Result<Self, QmpError> {
        let get = async |property: &str| {
            let path = format!("{PERIPHERALS}/{device}");
            match qmp.query(qmp::qom_get { path, property: property.into() }, deadline).await {
                Ok(value) => Ok(Some(value)),
                // It has no such property.
                Err(QmpError::Refused { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let number = |value: Option<Value>| value.as_ref().and_then(Value::as_u64);
        // A path, whose end is the bus by its name.
        let bus = get("parent_bus").await?;
        let name = bus.as_ref().and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
        Ok(Self {
            bus: name.map(str::to_owned),
            address: number(get("addr").await?),
            target: number(get("scsi-id").await?),
            unit: number(get("lun").await?),
        })
    }

    fn is(&self, place: Place) -> bool {
        let is_here = match place {
            Place::RootPort(_) | Place::SwitchPort(_) => true,
            Place::BridgePort(slot) => self.address == Some(u64::from(slot.slot().device()) << 3),
            Place::ScsiUnit(unit) => {
                (self.target, self.unit) == (Some(unit.target().into()), Some(unit.unit().into()))
            }
        };
        is_here && self.bus.as_ref() == Some(&place.bus())
    }
}
