//! Memory of one virtio-mem device: QEMU is told the size that is wanted, the guest follows.

use qapi::qmp;
use serde_json::Value;
use vc_hypervisor::ResizeError;
use vc_types::{Deadline, MiB};

use super::{guest_answer, resize_error};
use crate::args::VIRTIO_MEM;
use crate::machine::Shared;
use crate::qmp::QmpError;

pub(super) async fn resize(
    shared: &Shared,
    base: MiB,
    wanted: MiB,
    deadline: Deadline,
) -> Result<MiB, ResizeError> {
    match request(shared, wanted.bytes() - base.bytes(), deadline).await {
        Ok(size) => {
            let whole = u32::try_from((base.bytes() + size) >> 20).ok().and_then(MiB::new);
            Ok(whole.expect("no more than the machine may have"))
        }
        Err(error) => Err(resize_error(shared, "resize the virtio-mem device", error).await),
    }
}

/// Asks for `bytes` and waits for the guest; returns what it has reached.
async fn request(shared: &Shared, bytes: u64, deadline: Deadline) -> Result<u64, QmpError> {
    let (_, block) = device(shared, deadline).await?;
    let bytes = bytes.next_multiple_of(block.max(1));
    let reached = shared.qmp.events().expect(move |name, data| {
        let is_ours = name == "MEMORY_DEVICE_SIZE_CHANGE" && data.get("id")?.as_str() == Some(VIRTIO_MEM);
        (is_ours && data.get("size")?.as_u64() == Some(bytes)).then_some(())
    });
    let set = qmp::qom_set {
        path: format!("/machine/peripheral/{VIRTIO_MEM}"),
        property: "requested-size".into(),
        value: Value::from(bytes),
    };
    shared.qmp.execute(set, deadline).await?;
    let (size, _) = device(shared, deadline).await?;
    if size == bytes {
        return Ok(size);
    }
    // How far it came, the device says afterwards.
    guest_answer(shared, "qom-set", reached, deadline).await?;
    device(shared, deadline).await.map(|(size, _)| size)
}

/// The size of the device and of its blocks, in bytes.
async fn device(shared: &Shared, deadline: Deadline) -> Result<(u64, u64), QmpError> {
    let devices = shared.qmp.execute(qmp::query_memory_devices {}, deadline).await?;
    let ours = devices.into_iter().find_map(|device| match device {
        qmp::MemoryDeviceInfo::virtio_mem(device) => Some((device.data.size, device.data.block_size)),
        _ => None,
    });
    // A machine that may grow by nothing has no device.
    Ok(ours.unwrap_or((0, 1)))
}
