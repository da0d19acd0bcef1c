//! A disk whose image has grown on the host: QEMU is told the new size, and tells the guest.
//!
//! QEMU keeps the size with which it opened an image. `block_resize` also makes a file as long as it says, so
//! that whoever asks for less than there is would lose data: that is never sent.

use std::sync::Arc;

use qapi::qmp;
use serde_json::Value;
use vc_hypervisor::ResizeError;
use vc_types::{Deadline, DeviceId};

use super::resize_error;
use crate::machine::Shared;
use crate::plug::backend;
use crate::qmp::QmpError;

/// Tells QEMU that the image of a disk has `bytes` now.
pub(crate) async fn grow(
    shared: Arc<Shared>,
    disk: DeviceId,
    bytes: u64,
    deadline: Deadline,
) -> Result<(), ResizeError> {
    // So that it is not unplugged meanwhile.
    let turn = shared.devices().turn(&disk);
    let Some(turn) = turn else { return Err(missing(&shared, disk)) };
    let Ok(_turn) = tokio::time::timeout(deadline.remaining(), turn.acquire_owned()).await else {
        return Err(ResizeError::Unknown { step: "finish what was begun" });
    };
    match size(&shared, &disk, deadline).await {
        Ok(Some(now)) if now > bytes => {
            return Err(ResizeError::TooLittle { least: format!("{now} bytes of {disk}") });
        }
        Ok(Some(_)) => {}
        Ok(None) => return Err(ResizeError::NoDisk { device: disk }),
        Err(error) => return Err(resize_error(&shared, "tell the size of a disk", error).await),
    }
    let size = i64::try_from(bytes).unwrap_or(i64::MAX);
    let command = qmp::block_resize { device: None, node_name: Some(backend(&disk).to_owned()), size };
    match shared.qmp.execute(command, deadline).await {
        Ok(_) => Ok(()),
        Err(error) => Err(resize_error(&shared, "grow a disk", error).await),
    }
}

/// A machine that has ended has no devices.
fn missing(shared: &Shared, disk: DeviceId) -> ResizeError {
    match shared.ended() {
        Some(exit) => ResizeError::MachineGone { exit },
        None => ResizeError::NoDisk { device: disk },
    }
}

/// The size that the guest is told, in bytes; `None` for what is no disk.
async fn size(shared: &Shared, disk: &DeviceId, deadline: Deadline) -> Result<Option<u64>, QmpError> {
    let nodes = shared.qmp.query(qmp::query_named_block_nodes { flat: Some(true) }, deadline).await?;
    let is_ours = |node: &&Value| node["node-name"].as_str() == Some(backend(disk));
    let ours = nodes.as_array().into_iter().flatten().find(is_ours);
    Ok(ours.and_then(|node| node.pointer("/image/virtual-size")?.as_u64()))
}
