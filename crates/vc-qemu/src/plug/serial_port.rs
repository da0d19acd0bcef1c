//! Serial ports: each a controller of its own with one port. Source: QEMU's QMP reference, `chardev-add`, and the
//! properties of virtio-serial-pci and virtserialport.
//!
//! A controller for each costs a PCI port, but nothing of the boot, and the guest finds the port by its slot.

use serde_json::json;
use vc_device::{SerialPortBackend, SerialPortSpec};

use crate::devices::Taken;

use super::place::put;
use super::recipe::{Command, Recipe, SetNumbers};

/// Port 0 of a controller is the guest's console (virtio 1.2, section 5.3.1).
const NUMBER: u32 = 1;

/// How to plug a serial port.
pub(crate) fn recipe(spec: &SerialPortSpec, taken: Taken, sets: &SetNumbers<'_>) -> Recipe {
    let (id, mut recipe) = (spec.id.as_str(), Recipe::default());
    let chardev = format!("char-{id}");
    let backend = match &spec.backend {
        SerialPortBackend::Socket(socket) => {
            let name = format!("socket-{id}");
            recipe.pass_descriptor(&name, socket);
            let address = json!({"type": "fd", "data": {"str": name}});
            json!({"type": "socket", "data": {"addr": address, "server": false}})
        }
        SerialPortBackend::Device(device) => {
            let path = recipe.pass_file(sets.next(), device);
            json!({"type": "serial", "data": {"device": path}})
        }
    };
    let add = Command::new("chardev-add", json!({"id": chardev, "backend": backend}));
    let remove = Command::new("chardev-remove", json!({"id": chardev}));
    recipe.make("open the port's other end", add, remove);
    let controller = json!({"driver": "virtio-serial-pci", "id": id, "max_ports": NUMBER + 1});
    recipe.device("add the controller", put(taken, controller));
    let port = json!({
        "driver": "virtserialport",
        "id": format!("port-{id}"),
        "bus": format!("{id}.0"),
        "nr": NUMBER,
        "chardev": chardev,
        "name": spec.name.as_str(),
    });
    recipe.on_device("add the port", Command::new("device_add", port));
    recipe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plug::recipe::text;
    use crate::plug::testing::{PCI, assert_golden, file, place, sets};

    #[test]
    fn on_a_socket_and_on_a_device_of_the_host() {
        for (golden, backend) in [
            ("serial-socket.txt", SerialPortBackend::Socket(file())),
            ("serial-device.txt", SerialPortBackend::Device(file())),
        ] {
            let spec =
                SerialPortSpec { id: "s0".parse().unwrap(), name: "org.vc.port".parse().unwrap(), backend };
            let recipe = sets(|sets| recipe(&spec, place(PCI, 8, 0), sets));
            assert_golden(golden, &text(&recipe));
        }
    }
}
