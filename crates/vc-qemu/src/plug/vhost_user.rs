//! Devices that another process serves over a socket: disks and shared directories. They need the
//! guest's memory to be shared, which it always is. Source: QEMU's `docs/system/devices/vhost-user.rst`.

use serde_json::{Value, json};
use vc_device::{VhostUserBlkSpec, VhostUserFsSpec};
use vc_types::{DeviceId, HostPath};

use crate::devices::Taken;

use super::place::put;
use super::recipe::{Command, Recipe};

/// How to plug a disk that another process serves.
pub(crate) fn block(spec: &VhostUserBlkSpec, taken: Taken) -> Recipe {
    let (mut recipe, chardev) = connect(&spec.id, &spec.socket);
    let device = json!({
        "driver": "vhost-user-blk-pci",
        "id": spec.id.as_str(),
        "chardev": chardev,
        "queue-size": spec.queue_size.get(),
    });
    recipe.device("add the disk", put(taken, device));
    recipe
}

/// How to plug a shared directory.
pub(crate) fn file_system(spec: &VhostUserFsSpec, taken: Taken) -> Recipe {
    let (mut recipe, chardev) = connect(&spec.id, &spec.socket);
    let device = json!({
        "driver": "vhost-user-fs-pci",
        "id": spec.id.as_str(),
        "chardev": chardev,
        "tag": spec.tag.as_str(),
        "queue-size": spec.queue_size.get(),
    });
    recipe.device("add the shared directory", put(taken, device));
    recipe
}

/// Connects QEMU to the server; the connection's name comes back, too.
pub(super) fn connect(device: &DeviceId, socket: &HostPath) -> (Recipe, String) {
    let chardev = format!("char-{device}");
    let address = json!({"type": "unix", "data": {"path": path(socket)}});
    let backend = json!({"type": "socket", "data": {"addr": address, "server": false}});
    let add = Command::new("chardev-add", json!({"id": chardev, "backend": backend}));
    let remove = Command::new("chardev-remove", json!({"id": chardev}));
    let mut recipe = Recipe::default();
    recipe.make("connect to the device's server", add, remove);
    (recipe, chardev)
}

fn path(socket: &HostPath) -> Value {
    socket.as_path().to_string_lossy().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plug::recipe::text;
    use crate::plug::testing::{PCI, assert_golden, place};
    use vc_device::QueueSize;

    #[test]
    fn a_disk_and_a_directory() {
        let socket = HostPath::new("/run/vc/web/server.sock").unwrap();
        let place = place(PCI, 8, 0);
        let id = "v0".parse().unwrap();
        let disk = VhostUserBlkSpec { id, socket: socket.clone(), queue_size: QueueSize::default() };
        assert_golden("vhost-user-blk.txt", &text(&block(&disk, place)));
        let queue_size = QueueSize::new(1024).unwrap();
        let share = VhostUserFsSpec { id: disk.id, socket, tag: "shared".parse().unwrap(), queue_size };
        assert_golden("vhost-user-fs.txt", &text(&file_system(&share, place)));
    }
}
