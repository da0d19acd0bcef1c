//! Unplugging: the device with the guest's consent, then what is behind it.

use std::sync::Arc;

use qapi::qmp;
use vc_hypervisor::UnplugError;
use vc_types::{Deadline, DeviceId};

use crate::devices::Undo;
use crate::machine::Shared;
use crate::qmp::{QmpError, UnplugOutcome};

/// Takes away whatever there is of a device: frontend, backend, place. May be tried again.
pub(crate) async fn unplug(
    machine: Arc<Shared>,
    device: DeviceId,
    deadline: Deadline,
) -> Result<(), UnplugError> {
    let turn = machine.devices().turn(&device);
    let Some(turn) = turn else {
        let source = vc_device::PortError::NotPlugged(device.clone());
        return Err(UnplugError::NotPlugged { device, source });
    };
    let Ok(_turn) = tokio::time::timeout(deadline.remaining(), turn.acquire_owned()).await else {
        return Err(UnplugError::Unknown { device, step: "finish what was begun" });
    };
    // Whoever had the turn before may have unplugged it, or not have plugged it after all.
    let undo = machine.devices().undo(&device);
    let Some(undo) = undo else { return Ok(()) };
    remove_frontend(&machine, &device, deadline).await?;
    release(&machine, &device, undo, deadline).await?;
    machine.devices().give_back(&device);
    Ok(())
}

/// Takes away what is behind a device that is gone; what stays is kept for the next try.
///
/// After a plug that had no answer, a refusal means that there is nothing: commands are worked on in
/// order, so none of that plug can come later.
async fn release(
    machine: &Shared,
    device: &DeviceId,
    undo: Undo,
    deadline: Deadline,
) -> Result<(), UnplugError> {
    let Undo { commands, certain } = undo;
    let answers = machine.qmp.pipeline(commands.clone(), deadline).await;
    let (mut left, mut failed) = (Vec::new(), None);
    for (command, answer) in commands.into_iter().zip(answers) {
        match answer {
            Ok(_) => {}
            Err(error @ QmpError::Refused { .. }) if !certain => {
                tracing::debug!(%device, command = command.name, %error, "nothing to take away");
            }
            Err(error) => {
                left.push(command);
                failed.get_or_insert(error);
            }
        }
    }
    let Some(error) = failed else { return Ok(()) };
    // Whether a command without an answer was carried out is not known.
    let certain = certain && matches!(error, QmpError::Refused { .. });
    machine.devices().keep_undo(device, Undo { commands: left, certain });
    Err(unplug_error(machine, device, "release the backend", error).await)
}

/// Takes out the device itself, and what is on it.
pub(super) async fn remove_frontend(
    machine: &Shared,
    device: &DeviceId,
    deadline: Deadline,
) -> Result<(), UnplugError> {
    const STEP: &str = "remove the device";
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
        Ok(Err(_)) | Err(_) => Err(silent(machine, device).await),
    }
}

/// Why the guest has not answered: one that does not run cannot.
async fn silent(machine: &Shared, device: &DeviceId) -> UnplugError {
    let deadline = Deadline::after(super::UNDO_TIME);
    let device = device.clone();
    match machine.qmp.execute(qmp::query_status {}, deadline).await {
        Ok(status) if !status.running => UnplugError::GuestPaused { device },
        Ok(_) => UnplugError::GuestHoldsOn { device },
        Err(error) => unplug_error(machine, &device, "say whether the guest runs", error).await,
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
