//! Pausing, resuming, and asking QEMU what it can do; and what a QMP error means to whoever asked.

use std::collections::BTreeSet;

use qapi::qmp;
use vc_hypervisor::{Capabilities, ControlError, MachineExit};
use vc_types::{Deadline, DeviceId};

use crate::accelerator::Chosen;
use crate::end;
use crate::machine::{QEMU, Shared};
use crate::qmp::{Qmp, QmpError};
use crate::vsock::END_TIME;

/// Where QEMU keeps the devices that have an id.
pub(crate) const PERIPHERALS: &str = "/machine/peripheral";

/// The kinds of device that can be plugged, by their names in QEMU.
const FRONTENDS: [&str; 9] = [
    "virtio-blk-pci",
    "scsi-hd",
    "virtio-net-pci",
    "virtio-serial-pci",
    "vfio-pci",
    "vhost-user-blk-pci",
    "vhost-user-fs-pci",
    "virtio-pmem-pci",
    "nvdimm",
];

/// What a QMP error means.
pub(crate) enum Meaning {
    /// It was not done.
    Refused(QmpError),
    /// It may have been done.
    Unknown,
    /// The machine has ended.
    Gone(MachineExit),
}

/// A closed stream is followed by QEMU's end, which is waited for as long as it takes to kill it.
pub(crate) async fn meaning(shared: &Shared, error: QmpError) -> Meaning {
    match error {
        QmpError::Closed { .. } => {
            let exit = tokio::time::timeout(END_TIME, shared.exited()).await;
            Meaning::Gone(exit.unwrap_or_else(|_| end::lost(shared)))
        }
        QmpError::Deadline { .. } => Meaning::Unknown,
        refused => Meaning::Refused(refused),
    }
}

pub(crate) async fn control_error(shared: &Shared, step: &'static str, error: QmpError) -> ControlError {
    match meaning(shared, error).await {
        Meaning::Refused(error) => ControlError::Refused { step, source: error.into() },
        Meaning::Unknown => ControlError::Unknown { step },
        Meaning::Gone(exit) => ControlError::MachineGone { step, exit },
    }
}

pub(crate) async fn pause(shared: &Shared, deadline: Deadline) -> Result<(), ControlError> {
    match shared.qmp.execute(qmp::stop {}, deadline).await {
        Ok(_) => Ok(()),
        Err(error) => Err(control_error(shared, "pause", error).await),
    }
}

pub(crate) async fn resume(shared: &Shared, deadline: Deadline) -> Result<(), ControlError> {
    match shared.qmp.execute(qmp::cont {}, deadline).await {
        Ok(_) => Ok(()),
        Err(error) => Err(control_error(shared, "resume", error).await),
    }
}

/// The devices that were plugged, as QEMU has them.
pub(crate) async fn plugged(shared: &Shared, deadline: Deadline) -> Result<BTreeSet<DeviceId>, ControlError> {
    match frontends(&shared.qmp, deadline).await {
        Ok(plugged) => Ok(plugged),
        Err(error) => Err(control_error(shared, "list its devices", error).await),
    }
}

/// The devices of the kinds that are plugged, and that no machine is launched with.
pub(crate) async fn frontends(qmp: &Qmp, deadline: Deadline) -> Result<BTreeSet<DeviceId>, QmpError> {
    let listed = qmp.execute(qmp::qom_list { path: PERIPHERALS.into() }, deadline).await?;
    let is_plugged = |kind: &str| {
        let kind = kind.strip_prefix("child<").and_then(|kind| kind.strip_suffix('>'));
        kind.is_some_and(|kind| FRONTENDS.contains(&kind))
    };
    let plugged = listed.into_iter().filter(|device| is_plugged(&device.type_));
    Ok(plugged.filter_map(|device| device.name.parse().ok()).collect())
}

/// Asks once; a question without an answer may be asked again.
pub(crate) async fn capabilities(shared: &Shared, deadline: Deadline) -> Result<Capabilities, ControlError> {
    let known = shared.capabilities.get_or_try_init(async || {
        let types = qmp::qom_list_types { abstract_: Some(false), implements: None };
        match shared.qmp.execute(types, deadline).await {
            Ok(types) => Ok(judge(shared, |name| types.iter().any(|known| known.name == name))),
            Err(error) => Err(control_error(shared, "say what it can do", error).await),
        }
    });
    known.await.cloned()
}

fn judge(shared: &Shared, knows: impl Fn(&str) -> bool) -> Capabilities {
    let hardware = shared.accelerator == Chosen::Kvm;
    Capabilities {
        version: format!("{QEMU} {}", shared.qmp.version()),
        hardware,
        virtio_mem: knows("virtio-mem-pci"),
        virtio_pmem: knows("virtio-pmem-pci"),
        iommufd: knows("iommufd"),
        vcpu_unplug: hardware,
    }
}
