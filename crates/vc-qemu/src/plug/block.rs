//! Disks: one image each, on a port, a bridge or the SCSI controller. Source: QEMU's QMP reference,
//! `blockdev-add`, and the properties of virtio-blk-pci and scsi-hd.

use serde_json::{Value, json};
use vc_device::{Access, AioBackend, BlockBackend, BlockSpec, HostCache, ImageFormat, Place, Serial};
use vc_types::DeviceId;

use crate::devices::Taken;

use super::place::{given, put};
use super::recipe::{Command, Recipe, SetNumbers, backend};

/// How to plug a disk.
pub(crate) fn recipe(spec: &BlockSpec, taken: Taken, sets: &SetNumbers<'_>) -> Recipe {
    let mut recipe = Recipe::default();
    let path = recipe.pass_file(sets.next(), &spec.image);
    let node = backend(&spec.id);
    let add = Command::new("blockdev-add", image(spec, node, &path));
    recipe.make("open the image", add, delete_node(node));
    let block_size = spec.logical_block_size.map(vc_device::BlockSize::bytes);
    recipe.device("add the disk", disk(&spec.id, taken, spec.serial.as_ref(), spec.access, block_size));
    recipe
}

/// The frontend, whatever its backend is. Its node is called as the device is.
pub(super) fn disk(
    id: &DeviceId,
    taken: Taken,
    serial: Option<&Serial>,
    access: Access,
    block_size: Option<u32>,
) -> Value {
    let driver = if matches!(taken.place, Some(Place::ScsiUnit(_))) { "scsi-hd" } else { "virtio-blk-pci" };
    let properties = json!({
        "driver": driver,
        "id": id.as_str(),
        "drive": backend(id),
        "serial": serial.map(Serial::as_str),
        // Other machines may read the image at the same time.
        "share-rw": (access == Access::ReadOnly).then_some(true),
        "logical_block_size": block_size,
        "physical_block_size": block_size,
    });
    put(taken, given(properties))
}

pub(crate) fn delete_node(node: &str) -> Command {
    Command::new("blockdev-del", json!({"node-name": node}))
}

fn image(spec: &BlockSpec, node: &str, path: &str) -> Value {
    let read_only = spec.access == Access::ReadOnly;
    let format = match spec.format {
        ImageFormat::Raw => "raw",
        ImageFormat::Qcow2 => "qcow2",
    };
    let file = file(path, spec);
    // Without `backing: null`, QEMU would open the file that the image's header names.
    let backing = (spec.format == ImageFormat::Qcow2).then_some(Value::Null);
    let mut node = json!({
        "node-name": node,
        "driver": format,
        "read-only": read_only,
        // Or a refused write access would quietly become read-only.
        "auto-read-only": false,
        "cache": cache(spec),
        "file": file,
    });
    if let (Value::Object(node), Some(backing)) = (&mut node, backing) {
        node.insert("backing".into(), backing);
    }
    node
}

fn file(path: &str, spec: &BlockSpec) -> Value {
    let read_only = spec.access == Access::ReadOnly;
    let driver = match spec.backend {
        BlockBackend::File => "file",
        BlockBackend::HostDevice => "host_device",
    };
    let aio = match spec.io.aio() {
        AioBackend::Threads => "threads",
        AioBackend::Native => "native",
        AioBackend::IoUring => "io_uring",
    };
    json!({
        "driver": driver,
        "filename": path,
        "aio": aio,
        "read-only": read_only,
        "auto-read-only": false,
        "cache": cache(spec),
        // A read-only image may be open elsewhere, by another machine or by whoever made it.
        "locking": if read_only { "off" } else { "on" },
    })
}

fn cache(spec: &BlockSpec) -> Value {
    json!({"direct": spec.io.cache() == HostCache::Direct, "no-flush": false})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Wanted;
    use crate::plug::recipe::text;
    use crate::plug::testing::{assert_golden, file, name, place, sets};
    use vc_device::{BlockSize, IoPolicy};

    fn spec(access: Access) -> BlockSpec {
        let serial = Some("layer0".parse().unwrap());
        BlockSpec { serial, ..BlockSpec::new("d0".parse().unwrap(), file(), name(), access) }
    }

    #[test]
    fn a_shared_image_on_a_port() {
        let recipe = sets(|sets| recipe(&spec(Access::ReadOnly), place(Wanted::Disk, 8, 0), sets));
        assert_golden("block-port.txt", &text(&recipe));
    }

    #[test]
    fn a_host_device_on_a_bridge() {
        let io = IoPolicy::new(HostCache::Direct, AioBackend::IoUring).unwrap();
        let backend = BlockBackend::HostDevice;
        let block_size = Some(BlockSize::new(4096).unwrap());
        let spec = BlockSpec { io, backend, logical_block_size: block_size, ..spec(Access::ReadWrite) };
        let recipe = sets(|sets| recipe(&spec, place(Wanted::Disk, 0, 1), sets));
        assert_golden("block-bridge.txt", &text(&recipe));
    }

    #[test]
    fn an_image_in_qcow2_as_a_logical_unit() {
        let spec = BlockSpec { format: ImageFormat::Qcow2, serial: None, ..spec(Access::ReadWrite) };
        let recipe = sets(|sets| recipe(&spec, place(Wanted::Disk, 0, 0), sets));
        assert_golden("block-unit.txt", &text(&recipe));
    }
}
