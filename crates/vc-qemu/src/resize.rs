//! Changing the size of a running machine.
//!
//! Each change begins by asking QEMU what is there, so that one whose answer never came is neither lost
//! nor made twice. One change at a time, since each counts on what it was told.

mod dimms;
mod disk;
mod vcpus;
mod virtio_mem;

use std::num::NonZeroU8;
use std::sync::Arc;

use qapi::qmp;
use serde_json::Value;
use tokio::sync::{SemaphorePermit, oneshot};
use vc_hypervisor::{MachineSpec, MemoryGrowth, ResizeError};
use vc_types::{Deadline, MiB};

use crate::control::{Meaning, meaning};
use crate::machine::Shared;
use crate::qmp::{Qmp, QmpError, UnplugOutcome};

/// What a machine was launched with, and what it may have.
#[derive(Debug)]
pub(crate) struct Limits {
    vcpus: NonZeroU8,
    max_vcpus: NonZeroU8,
    memory: MiB,
    growth: MemoryGrowth,
}

impl Limits {
    pub(crate) fn of(spec: &MachineSpec) -> Self {
        let max_vcpus = spec.max_vcpus.max(spec.vcpus);
        Self { vcpus: spec.vcpus, max_vcpus, memory: spec.memory, growth: spec.memory_growth }
    }

    fn check_vcpus(&self, wanted: NonZeroU8) -> Result<(), ResizeError> {
        if wanted > self.max_vcpus {
            return Err(ResizeError::TooManyVcpus { most: self.max_vcpus.get() });
        }
        if wanted < self.vcpus {
            return Err(ResizeError::TooLittle { least: format!("{} vCPUs", self.vcpus) });
        }
        Ok(())
    }

    fn check_memory(&self, wanted: MiB) -> Result<(), ResizeError> {
        let most = match self.growth {
            MemoryGrowth::None => self.memory,
            MemoryGrowth::Dimms { most } | MemoryGrowth::VirtioMem { most } => most.max(self.memory),
        };
        if wanted > most {
            return Err(ResizeError::TooMuchMemory { most });
        }
        if wanted < self.memory {
            return Err(ResizeError::TooLittle { least: self.memory.to_string() });
        }
        Ok(())
    }
}

/// Gives the machine `wanted` vCPUs.
pub(crate) async fn vcpus(
    shared: Arc<Shared>,
    wanted: NonZeroU8,
    deadline: Deadline,
) -> Result<NonZeroU8, ResizeError> {
    shared.limits.check_vcpus(wanted)?;
    let _turn = turn(&shared, deadline).await?;
    vcpus::resize(&shared, wanted, deadline).await
}

/// Gives the machine `wanted` memory.
pub(crate) async fn memory(shared: Arc<Shared>, wanted: MiB, deadline: Deadline) -> Result<MiB, ResizeError> {
    let limits = &shared.limits;
    limits.check_memory(wanted)?;
    let _turn = turn(&shared, deadline).await?;
    match limits.growth {
        MemoryGrowth::None => Ok(limits.memory),
        MemoryGrowth::Dimms { most } => {
            dimms::resize(&shared, dimms::Wanted { base: limits.memory, wanted, most }, deadline).await
        }
        MemoryGrowth::VirtioMem { .. } => virtio_mem::resize(&shared, limits.memory, wanted, deadline).await,
    }
}

pub(crate) use disk::grow as disk;

async fn turn(shared: &Shared, deadline: Deadline) -> Result<SemaphorePermit<'_>, ResizeError> {
    let turn = tokio::time::timeout(deadline.remaining(), shared.resizing.acquire()).await;
    let turn = turn.map_err(|_| ResizeError::Unknown { step: "finish the change before" })?;
    Ok(turn.expect("nobody closes it"))
}

async fn resize_error(shared: &Shared, step: &'static str, error: QmpError) -> ResizeError {
    match meaning(shared, error).await {
        Meaning::Refused(error) => ResizeError::Refused { step, source: error.into() },
        Meaning::Unknown => ResizeError::Unknown { step },
        Meaning::Gone(exit) => ResizeError::MachineGone { exit },
    }
}

/// Waits for what the guest does about a command; not to the end of the time, which leaves some to ask QEMU what
/// came of it. A QEMU that ends meanwhile answers nothing any more.
async fn guest_answer<T>(
    shared: &Shared,
    command: &'static str,
    answer: oneshot::Receiver<T>,
    deadline: Deadline,
) -> Result<Option<T>, QmpError> {
    let time = deadline.remaining() / 10 * 9;
    tokio::select! {
        biased;
        answer = tokio::time::timeout(time, answer) => Ok(answer.ok().and_then(Result::ok)),
        () = shared.qmp.closed() => Err(QmpError::Closed { command }),
    }
}

/// Resolves when QEMU has let go of a vCPU or a DIMM, or the guest refused.
///
/// Of a vCPU only a part is reported as deleted, by its path. A guest tells by ACPI's `_OST` how its
/// answer to an eject request (3) goes: 0x84 means that it is at work (ACPI specification, 6.3.5).
fn expect_ejection(qmp: &Qmp, id: &str) -> oneshot::Receiver<UnplugOutcome> {
    const EJECT_REQUEST: u64 = 3;
    const SUCCESS: u64 = 0;
    const IN_PROGRESS: u64 = 0x84;
    let id = id.to_owned();
    let path = format!("/machine/peripheral/{id}");
    qmp.events().expect(move |name, data| {
        let text = |pointer| data.pointer(pointer).and_then(Value::as_str);
        let number = |pointer| data.pointer(pointer).and_then(Value::as_u64);
        let below = |whole: &str| {
            whole == path || whole.strip_prefix(&*path).is_some_and(|rest| rest.starts_with('/'))
        };
        match name {
            "DEVICE_DELETED" => text("/path").is_some_and(below).then_some(UnplugOutcome::Gone),
            "DEVICE_UNPLUG_GUEST_ERROR" if text("/device") == Some(&id) => Some(UnplugOutcome::Refused),
            "ACPI_DEVICE_OST" if text("/info/device") == Some(&id) => {
                let refused = number("/info/source") == Some(EJECT_REQUEST)
                    && !matches!(number("/info/status"), Some(SUCCESS | IN_PROGRESS));
                refused.then_some(UnplugOutcome::Refused)
            }
            _ => None,
        }
    })
}

/// Asks the guest to let go of `id` and waits for its answer; whether it did, the caller asks QEMU.
async fn eject(shared: &Shared, id: &str, deadline: Deadline) -> Result<Option<UnplugOutcome>, QmpError> {
    let answer = expect_ejection(&shared.qmp, id);
    match shared.qmp.execute(qmp::device_del { id: id.to_owned() }, deadline).await {
        Ok(_) => guest_answer(shared, "device_del", answer, deadline).await,
        Err(QmpError::Refused { not_found: true, .. }) => Ok(Some(UnplugOutcome::Gone)),
        Err(error) => Err(error),
    }
}
