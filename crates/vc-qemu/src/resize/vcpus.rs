//! vCPUs: plugged into free slots, and taken out again where that does no harm.

use std::num::NonZeroU8;

use qapi::qmp;
use serde_json::Value;
use vc_hypervisor::ResizeError;
use vc_types::Deadline;

use super::{eject, resize_error};
use crate::accelerator::Chosen;
use crate::machine::Shared;
use crate::qmp::QmpError;

/// Measured with QEMU 7.2: the next device that is plugged aborts QEMU, and with it the machine.
const EMULATED: &str = "emulated machines crash at the next change of their memory map once a vCPU was unplugged; let the guest take it offline";

/// Plugged vCPUs are named after their place in QEMU's list.
const NAME: &str = "vcpu-";

pub(super) async fn resize(
    shared: &Shared,
    wanted: NonZeroU8,
    deadline: Deadline,
) -> Result<NonZeroU8, ResizeError> {
    let step = "count the vCPUs";
    let slots = match slots(shared, deadline).await {
        Ok(slots) => slots,
        Err(error) => return Err(resize_error(shared, step, error).await),
    };
    let (taken, free): (Vec<_>, Vec<_>) = slots.into_iter().partition(|slot| slot.plugged.is_some());
    let wanted = usize::from(wanted.get());
    if wanted < taken.len() && shared.accelerator == Chosen::Tcg {
        return Err(ResizeError::VcpusStay { reason: EMULATED });
    }
    for slot in free.iter().take(wanted.saturating_sub(taken.len())) {
        let add =
            qmp::device_add::new(&*slot.driver, format!("{NAME}{}", slot.number), None, slot.place.clone());
        if let Err(error) = shared.qmp.execute(add, deadline).await {
            return Err(resize_error(shared, "add a vCPU", error).await);
        }
    }
    // The newest first; those of the start have no names.
    let names =
        taken.iter().rev().filter_map(|slot| slot.plugged.as_deref()?.strip_prefix("/machine/peripheral/"));
    for name in names.take(taken.len().saturating_sub(wanted)) {
        if let Err(error) = eject(shared, name, deadline).await {
            return Err(resize_error(shared, "remove a vCPU", error).await);
        }
    }
    let now = match self::slots(shared, deadline).await {
        Ok(slots) => slots.iter().filter(|slot| slot.plugged.is_some()).count(),
        Err(error) => return Err(resize_error(shared, step, error).await),
    };
    Ok(u8::try_from(now).ok().and_then(NonZeroU8::new).expect("at least one, and no more than it may have"))
}

/// A place for a vCPU.
struct Slot {
    /// Its number, in the order in which slots are filled.
    number: usize,
    driver: String,
    /// Where it is: socket, core, thread, as `device_add` wants it.
    place: Vec<(String, Value)>,
    /// The QOM path of the vCPU in it.
    plugged: Option<String>,
}

async fn slots(shared: &Shared, deadline: Deadline) -> Result<Vec<Slot>, QmpError> {
    let mut listed = shared.qmp.execute(qmp::query_hotpluggable_cpus {}, deadline).await?;
    // QEMU lists the last one first.
    listed.reverse();
    let slot = |(number, cpu): (usize, qmp::HotpluggableCPU)| {
        let place = serde_json::to_value(&cpu.props).ok();
        let place = place.and_then(|place| Some(place.as_object()?.clone().into_iter().collect()));
        Slot { number, driver: cpu.type_, place: place.unwrap_or_default(), plugged: cpu.qom_path }
    };
    Ok(listed.into_iter().enumerate().map(slot).collect())
}
