//! Plugging: a transaction over several QMP commands, the same for every kind of device.
//!
//! A kind's own file says which commands ([`Recipe`]), as a pure function; this one runs them. All are
//! sent at once, since QEMU works on them in order and each depends on those before it: the first
//! refusal makes the rest fail, and what had succeeded is taken back, newest first. A step without an
//! answer undoes nothing, since nobody knows what QEMU did: the place stays taken, and `unplug` takes
//! away whatever there is.

mod block;
mod gpt;
mod network;
mod partitioned;
mod place;
mod pmem;
mod recipe;
mod serial_port;
#[cfg(test)]
mod testing;
mod unplug;
mod vfio;
mod vhost_user;

use std::sync::Arc;
use std::time::Duration;

use qapi::qmp;
use serde_json::Value;
use vc_device::{DeviceSpec, GuestLocation, PmemSpec, VfioHandle};
use vc_hypervisor::PlugError;
use vc_types::{Deadline, DeviceId};

use crate::devices::{Taken, Undo};
use crate::machine::Shared;
use crate::qmp::QmpError;

pub(crate) use block::delete_node;
pub(crate) use recipe::{Command, backend};
pub(crate) use unplug::unplug;

use recipe::{PASS_FILE, Recipe, SetNumbers};

/// What an undo may take, however late the step that failed was.
const UNDO_TIME: Duration = Duration::from_secs(5);

/// Plugs a device into the first free place of its kind.
pub(crate) async fn plug(
    machine: Arc<Shared>,
    spec: DeviceSpec,
    deadline: Deadline,
) -> Result<GuestLocation, PlugError> {
    let device = spec.id().clone();
    let wanted = place::wanted(&spec);
    let wanted = wanted.map_err(|reason| PlugError::Unsupported { device: device.clone(), reason })?;
    refuse_iommufd_without_support(&machine, &spec, deadline).await?;
    let taken = machine.devices().take(&device, wanted);
    let (taken, _turn) = taken.map_err(|source| PlugError::Port { device: device.clone(), source })?;
    let recipe = match recipe(&machine, &spec, taken, deadline).await {
        Ok(recipe) => recipe,
        Err(error) => {
            machine.devices().give_back(&device);
            return Err(error);
        }
    };
    machine.devices().keep_undo(&device, Undo { commands: recipe.undo(), certain: false });
    let Err(Fault { step, error, undone }) = run(&machine, &device, &recipe, deadline).await else {
        machine.devices().keep_undo(&device, Undo { commands: recipe.undo(), certain: true });
        return Ok(taken.location());
    };
    if undone {
        machine.devices().give_back(&device);
    }
    Err(plug_error(&machine, device, step, error).await)
}

/// What to do for a device. Nothing that it did lasts when it fails.
async fn recipe(
    machine: &Shared,
    spec: &DeviceSpec,
    taken: Taken,
    deadline: Deadline,
) -> Result<Recipe, PlugError> {
    let sets = SetNumbers(&machine.next_fdset);
    Ok(match spec {
        DeviceSpec::Block(spec) => block::recipe(spec, taken, &sets),
        DeviceSpec::Partitioned(spec) => partitioned::recipe(spec, taken, &sets).map_err(|source| {
            let device = spec.id().clone();
            PlugError::Host { device, step: "write the disk's partition table", source }
        })?,
        DeviceSpec::Pmem(spec) => {
            let set = sets.next();
            let fd = pass_file(machine, spec, set, deadline).await?;
            let mut recipe = pmem::recipe(spec, taken, fd);
            recipe.cleanup.push(recipe::remove_fd(set));
            recipe
        }
        DeviceSpec::VfioPci(spec) => vfio::recipe(spec, taken),
        DeviceSpec::VhostUserBlk(spec) => vhost_user::block(spec, taken),
        DeviceSpec::VhostUserFs(spec) => vhost_user::file_system(spec, taken),
        DeviceSpec::Network(spec) => network::recipe(spec, taken),
        DeviceSpec::SerialPort(spec) => serial_port::recipe(spec, taken, &sets),
        DeviceSpec::Character(_) | DeviceSpec::VfioAp(_) | DeviceSpec::Vsock(_) => {
            unreachable!("they have no kind of place")
        }
    })
}

/// Passes the file of persistent memory; gives the number of the descriptor that QEMU has now.
async fn pass_file(
    machine: &Shared,
    spec: &PmemSpec,
    set: i64,
    deadline: Deadline,
) -> Result<i64, PlugError> {
    let command = recipe::add_fd(set, spec.image());
    let answers = machine.qmp.pipeline(vec![command], deadline).await;
    let number = |answer: Value| answer.get("fd").and_then(Value::as_i64);
    match answers.into_iter().next() {
        Some(Ok(answer)) => number(answer).ok_or_else(|| PlugError::Refused {
            device: spec.id().clone(),
            step: PASS_FILE,
            source: "the answer to `add-fd` has no descriptor".into(),
        }),
        Some(Err(error)) => Err(plug_error(machine, spec.id().clone(), PASS_FILE, error).await),
        None => unreachable!("one command has one answer"),
    }
}

/// QEMU knows IOMMUFD from 9.0 on, where it was built with it.
async fn refuse_iommufd_without_support(
    machine: &Shared,
    spec: &DeviceSpec,
    deadline: Deadline,
) -> Result<(), PlugError> {
    const STEP: &str = "list its types";
    const TYPE: &str = "iommufd";
    let DeviceSpec::VfioPci(vfio) = spec else { return Ok(()) };
    if !matches!(vfio.handle, VfioHandle::Cdev { .. }) {
        return Ok(());
    }
    let query = qmp::qom_list_types { implements: Some(TYPE.into()), abstract_: None };
    match machine.qmp.execute(query, deadline).await {
        Ok(types) if types.iter().any(|known| known.name == TYPE) => Ok(()),
        Ok(_) => {
            let reason = "this QEMU has no IOMMUFD; pass the device by its IOMMU group";
            Err(PlugError::Unsupported { device: vfio.id.clone(), reason })
        }
        Err(error) => Err(plug_error(machine, vfio.id.clone(), STEP, error).await),
    }
}

/// A failed step, and whether nothing of the device is left for certain.
struct Fault {
    step: &'static str,
    error: QmpError,
    undone: bool,
}

/// Runs a recipe; takes back what was made when a step is refused.
async fn run(
    machine: &Arc<Shared>,
    device: &DeviceId,
    recipe: &Recipe,
    deadline: Deadline,
) -> Result<(), Fault> {
    let commands = recipe.steps.iter().map(|step| step.command.clone()).collect();
    let answers = machine.qmp.pipeline(commands, deadline).await;
    clean_up(machine, recipe.cleanup.clone());
    let known = |answer: &Result<_, QmpError>| matches!(answer, Ok(_) | Err(QmpError::Refused { .. }));
    let all_known = answers.iter().all(known);
    let made: Vec<_> = recipe.steps.iter().zip(&answers).filter(|(_, answer)| answer.is_ok()).collect();
    let undo: Vec<Command> = made.iter().rev().filter_map(|(step, _)| step.undo.clone()).collect();
    // What is on the device goes with it.
    let is_plugged = made.iter().any(|(step, _)| step.is_device);
    let failed = recipe.steps.iter().zip(answers).find_map(|(step, answer)| Some((step.what, answer.err()?)));
    let Some((step, error)) = failed else { return Ok(()) };
    let undone =
        all_known && (!is_plugged || take_out(machine, device).await) && take_back(machine, undo).await;
    Err(Fault { step, error, undone })
}

/// Lets go of what was only needed on the way, without holding up the plug: a set that stays costs a
/// descriptor, and no device.
fn clean_up(machine: &Arc<Shared>, commands: Vec<Command>) {
    let machine = Arc::clone(machine);
    tokio::spawn(async move {
        for answer in machine.qmp.pipeline(commands, Deadline::after(UNDO_TIME)).await {
            if let Err(error) = answer {
                tracing::debug!(%error, "what was only needed for a plug may stay");
            }
        }
    });
}

/// Takes out the device of a plug that failed behind it; whether the guest let go in time.
async fn take_out(machine: &Shared, device: &DeviceId) -> bool {
    let removed = unplug::remove_frontend(machine, device, Deadline::after(UNDO_TIME)).await;
    if let Err(error) = &removed {
        tracing::warn!(%device, %error, "the undo of a refused plug failed");
    }
    removed.is_ok()
}

/// Runs the commands of an undo; whether all did their work.
async fn take_back(machine: &Shared, undo: Vec<Command>) -> bool {
    let answers = machine.qmp.pipeline(undo, Deadline::after(UNDO_TIME)).await;
    let errors: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    for error in &errors {
        tracing::warn!(%error, "the undo of a refused plug failed");
    }
    errors.is_empty()
}

async fn plug_error(machine: &Shared, device: DeviceId, step: &'static str, error: QmpError) -> PlugError {
    match error {
        QmpError::Closed { .. } => PlugError::MachineGone { device, exit: machine.exited().await },
        QmpError::Deadline { .. } => PlugError::Unknown { device, step },
        other => PlugError::Refused { device, step, source: other.into() },
    }
}
