//! Plugging and unplugging disks: each a transaction over several QMP commands.
//!
//! Plug: port, descriptor, backend (`blockdev-add`), frontend (`device_add`); a refused step undoes
//! those before it, newest first. A step without an answer undoes nothing, since nobody knows what
//! QEMU did: the port stays taken, and `unplug` asks QEMU what is there before it takes it away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use qapi::qmp;
use serde_json::Value;
use vc_device::{Access, BlockSpec, RootPort};
use vc_hypervisor::{PlugError, UnplugError};
use vc_types::{Deadline, DeviceId, PciPath};

use crate::machine::Shared;
use crate::qmp::{QmpError, UnplugOutcome};

/// What an undo may take, however late the step that failed was.
const UNDO_TIME: Duration = Duration::from_secs(5);

/// Plugs a disk into the lowest free root port.
pub(crate) async fn plug_block(
    machine: Arc<Shared>,
    spec: BlockSpec,
    deadline: Deadline,
) -> Result<PciPath, PlugError> {
    let taken = machine.ports().take(&spec.id);
    let port = taken.map_err(|source| PlugError::Port { device: spec.id.clone(), source })?;
    match backend_and_frontend(&machine, &spec, port, deadline).await {
        Ok(()) => Ok(port.device_path()),
        Err(Fault { known: true, error, step }) => {
            free_port(&machine, &spec.id);
            Err(plug_error(&machine, spec.id, step, error).await)
        }
        Err(Fault { known: false, error, step }) => Err(plug_error(&machine, spec.id, step, error).await),
    }
}

/// A failed step, and whether it is known that nothing of the device is left.
struct Fault {
    step: &'static str,
    error: QmpError,
    known: bool,
}

impl Fault {
    fn new(step: &'static str, error: QmpError) -> Self {
        let known = matches!(error, QmpError::Refused { .. });
        Self { step, error, known }
    }
}

async fn backend_and_frontend(
    machine: &Shared,
    spec: &BlockSpec,
    port: RootPort,
    deadline: Deadline,
) -> Result<(), Fault> {
    let fdset = machine.next_fdset.fetch_add(1, Ordering::Relaxed);
    pass_image(machine, spec, fdset, deadline).await?;
    let backend = machine.qmp.execute(blockdev_add(spec, fdset), deadline).await;
    // QEMU has its own copy of the descriptor by now, or none at all: the set has served either way.
    let dropped = machine.qmp.execute(qmp::remove_fd { fdset_id: fdset, fd: None }, deadline).await;
    backend.map_err(|error| Fault::new("open the image", error))?;
    let frontend = match dropped {
        Ok(_) => machine.qmp.execute(device_add(spec, port), deadline).await.map(drop),
        Err(error) => Err(error),
    };
    let Err(error) = frontend else { return Ok(()) };
    let mut fault = Fault::new("add the disk", error);
    if fault.known {
        let command = qmp::blockdev_del { node_name: spec.id.to_string() };
        let undone = machine.qmp.execute(command, Deadline::after(UNDO_TIME)).await;
        if let Err(error) = undone {
            tracing::warn!(device = %spec.id, %error, "undo of a refused plug failed");
            fault.known = false;
        }
    }
    Err(fault)
}

async fn pass_image(machine: &Shared, spec: &BlockSpec, fdset: i64, deadline: Deadline) -> Result<(), Fault> {
    let command = qmp::add_fd { fdset_id: Some(fdset), opaque: Some(spec.name.to_string()) };
    let passed = machine.qmp.execute_with_file(command, spec.image.clone(), deadline).await;
    passed.map(drop).map_err(|error| Fault::new("pass the image", error))
}

fn blockdev_add(spec: &BlockSpec, fdset: i64) -> qmp::blockdev_add {
    let read_only = spec.access == Access::ReadOnly;
    let base = |node_name| qmp::BlockdevOptionsBase {
        node_name,
        read_only: Some(read_only),
        auto_read_only: Some(false),
        cache: None,
        detect_zeroes: None,
        discard: None,
        force_share: None,
    };
    let file = qmp::BlockdevOptionsFile {
        filename: format!("/dev/fdset/{fdset}"),
        // A read-only image may be open elsewhere, by another machine or by whoever made it.
        locking: Some(if read_only { qmp::OnOffAuto::off } else { qmp::OnOffAuto::on }),
        aio: None,
        aio_max_batch: None,
        drop_cache: None,
        pr_manager: None,
        x_check_cache_dropped: None,
    };
    let file = qmp::BlockdevOptions::file { base: base(None), file };
    let raw = qmp::BlockdevOptionsRaw {
        base: qmp::BlockdevOptionsGenericFormat { file: qmp::BlockdevRef::definition(Box::new(file)) },
        offset: None,
        size: None,
    };
    qmp::blockdev_add(qmp::BlockdevOptions::raw { base: base(Some(spec.id.to_string())), raw })
}

fn device_add(spec: &BlockSpec, port: RootPort) -> qmp::device_add {
    let mut properties = vec![("drive".to_owned(), Value::from(spec.id.as_str()))];
    properties.extend(spec.serial.as_ref().map(|serial| ("serial".to_owned(), serial.as_str().into())));
    if spec.access == Access::ReadOnly {
        properties.push(("share-rw".to_owned(), true.into()));
    }
    qmp::device_add::new("virtio-blk-pci", Some(spec.id.to_string()), Some(port.name()), properties)
}

async fn plug_error(machine: &Shared, device: DeviceId, step: &'static str, error: QmpError) -> PlugError {
    match error {
        QmpError::Closed { .. } => PlugError::MachineGone { device, exit: machine.exited().await },
        QmpError::Deadline { .. } => PlugError::Unknown { device, step },
        other => PlugError::Refused { device, step, source: other.into() },
    }
}

fn free_port(machine: &Shared, device: &DeviceId) {
    if machine.ports().give_back(device).is_err() {
        tracing::warn!(%device, "the port was already free");
    }
}

/// Takes away whatever there is of a device: frontend, backend, port.
pub(crate) async fn unplug(
    machine: Arc<Shared>,
    device: DeviceId,
    deadline: Deadline,
) -> Result<(), UnplugError> {
    if machine.ports().find(&device).is_none() {
        let source = vc_device::PortError::NotPlugged(device.clone());
        return Err(UnplugError::NotPlugged { device, source });
    }
    remove_frontend(&machine, &device, deadline).await?;
    remove_backend(&machine, &device, deadline).await?;
    free_port(&machine, &device);
    Ok(())
}

async fn remove_frontend(machine: &Shared, device: &DeviceId, deadline: Deadline) -> Result<(), UnplugError> {
    const STEP: &str = "remove the disk";
    let gone = machine.qmp.expect_unplug(device);
    match machine.qmp.execute(qmp::device_del { id: device.to_string() }, deadline).await {
        Ok(_) => {}
        // Never there, or gone since an unplug that nobody waited for.
        Err(QmpError::Refused { not_found: true, .. }) => return Ok(()),
        Err(error) => return Err(unplug_error(machine, device, STEP, error).await),
    }
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(deadline.remaining(), gone) => outcome,
        exit = machine.exited() => return Err(UnplugError::MachineGone { device: device.clone(), exit }),
    };
    match outcome {
        Ok(Ok(UnplugOutcome::Gone)) => Ok(()),
        Ok(Ok(UnplugOutcome::Refused)) => Err(UnplugError::GuestRefused { device: device.clone() }),
        Ok(Err(_)) | Err(_) => Err(UnplugError::GuestHoldsOn { device: device.clone() }),
    }
}

async fn remove_backend(machine: &Shared, device: &DeviceId, deadline: Deadline) -> Result<(), UnplugError> {
    let query = qmp::query_named_block_nodes { flat: Some(true) };
    let nodes = match machine.qmp.query(query, deadline).await {
        Ok(nodes) => nodes,
        Err(error) => return Err(unplug_error(machine, device, "list the images", error).await),
    };
    let name = |node: &Value| node.get("node-name").and_then(Value::as_str) == Some(device.as_str());
    if !nodes.as_array().is_some_and(|nodes| nodes.iter().any(name)) {
        return Ok(());
    }
    let command = qmp::blockdev_del { node_name: device.to_string() };
    match machine.qmp.execute(command, deadline).await {
        Ok(_) => Ok(()),
        Err(error) => Err(unplug_error(machine, device, "close the image", error).await),
    }
}

async fn unplug_error(
    machine: &Shared,
    device: &DeviceId,
    step: &'static str,
    error: QmpError,
) -> UnplugError {
    let device = device.clone();
    match error {
        QmpError::Closed { .. } => UnplugError::MachineGone { device, exit: machine.exited().await },
        QmpError::Deadline { .. } => UnplugError::Unknown { device, step },
        other => UnplugError::Refused { device, step, source: other.into() },
    }
}
