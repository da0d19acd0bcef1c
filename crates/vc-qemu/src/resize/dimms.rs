//! Memory as DIMMs: each a backend (`object-add`) and a device, plugged and unplugged as one.

use qapi::qmp;
use vc_hypervisor::ResizeError;
use vc_types::{Deadline, MiB};

use super::{eject, resize_error};
use crate::machine::Shared;
use crate::qmp::{QmpError, UnplugOutcome};
use crate::vsock::END_TIME;

/// A guest on x86-64 takes memory in blocks of this many MiB, while it has less than 64 GiB at the start.
const BLOCK: u32 = 128;

/// DIMMs are named `dimm-N`, their backends `dimm-N-backend`.
const NAME: &str = "dimm-";
const BACKEND: &str = "-backend";

/// How much memory there is to be.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) base: MiB,
    pub(super) wanted: MiB,
    pub(super) most: MiB,
}

pub(super) async fn resize(shared: &Shared, size: Wanted, deadline: Deadline) -> Result<MiB, ResizeError> {
    let step = "count the DIMMs";
    let mut dimms = match dimms(shared, deadline).await {
        Ok(dimms) => dimms,
        Err(error) => return Err(resize_error(shared, step, error).await),
    };
    let have = total(size.base, &dimms);
    if let Some(growth) = growth(size, have)? {
        if let Err(error) = plug(shared, &dimms, growth, deadline).await {
            return Err(resize_error(shared, "add a DIMM", error).await);
        }
        return Ok(total(have, &[Dimm { name: String::new(), size: growth }]));
    }
    // The newest first, as long as none is too much.
    while let Some(last) = dimms.last() {
        if total(size.base, &dimms[..dimms.len() - 1]) < size.wanted {
            break;
        }
        match unplug(shared, &last.name, deadline).await {
            Ok(true) => drop(dimms.pop()),
            // The guest keeps it, and it is likely to keep the others.
            Ok(false) => break,
            Err(error) => return Err(resize_error(shared, "remove a DIMM", error).await),
        }
    }
    Ok(total(size.base, &dimms))
}

fn total(base: MiB, dimms: &[Dimm]) -> MiB {
    let sum = dimms.iter().fold(base.get(), |sum, dimm| sum.saturating_add(dimm.size.get()));
    MiB::new(sum).expect("the base is not zero")
}

/// How much is to be added, in whole blocks.
fn growth(size: Wanted, have: MiB) -> Result<Option<MiB>, ResizeError> {
    let missing = size.wanted.get().saturating_sub(have.get());
    let whole = missing.div_ceil(BLOCK) * BLOCK;
    if have.get().saturating_add(whole) > size.most.get() && whole > 0 {
        return Err(ResizeError::TooMuchMemory { most: size.most });
    }
    Ok(MiB::new(whole))
}

struct Dimm {
    name: String,
    size: MiB,
}

/// The DIMMs by age. Backends whose DIMM is missing, of a change that was not finished, are removed.
async fn dimms(shared: &Shared, deadline: Deadline) -> Result<Vec<Dimm>, QmpError> {
    let devices = shared.qmp.execute(qmp::query_memory_devices {}, deadline).await?;
    let mut dimms: Vec<_> = devices.into_iter().filter_map(dimm).collect();
    dimms.sort_by_key(|dimm| number(&dimm.name));
    let objects = shared.qmp.execute(qmp::qom_list { path: "/objects".into() }, deadline).await?;
    for object in objects {
        let Some(owner) = object.name.strip_suffix(BACKEND).filter(|name| name.starts_with(NAME)) else {
            continue;
        };
        if !dimms.iter().any(|dimm| dimm.name == owner) {
            shared.qmp.execute(qmp::object_del { id: object.name.clone() }, deadline).await?;
        }
    }
    Ok(dimms)
}

fn dimm(device: qmp::MemoryDeviceInfo) -> Option<Dimm> {
    let qmp::MemoryDeviceInfo::dimm(dimm) = device else { return None };
    let name = dimm.data.id.filter(|name| name.starts_with(NAME))?;
    let size = u32::try_from(dimm.data.size >> 20).ok().and_then(MiB::new)?;
    Some(Dimm { name, size })
}

fn number(name: &str) -> u32 {
    name.strip_prefix(NAME).and_then(|number| number.parse().ok()).unwrap_or(u32::MAX)
}

async fn plug(shared: &Shared, dimms: &[Dimm], size: MiB, deadline: Deadline) -> Result<(), QmpError> {
    let number = dimms.last().map_or(0, |dimm| number(&dimm.name).saturating_add(1));
    let name = format!("{NAME}{number}");
    let backend = format!("{name}{BACKEND}");
    shared.qmp.execute(add_backend(&backend, size), deadline).await?;
    let device =
        qmp::device_add::new("pc-dimm", name, None, [("memdev".to_owned(), backend.as_str().into())]);
    let added = shared.qmp.execute(device, deadline).await;
    if matches!(added, Err(QmpError::Refused { .. })) {
        let undo = qmp::object_del { id: backend };
        if let Err(error) = shared.qmp.execute(undo, Deadline::after(END_TIME)).await {
            // The next change finds it.
            tracing::warn!(%error, "the backend of a refused DIMM stays");
        }
    }
    added.map(drop)
}

/// Shared, as the memory of the start is.
fn add_backend(id: &str, size: MiB) -> qmp::object_add {
    let base = qmp::MemoryBackendProperties {
        dump: None,
        host_nodes: None,
        merge: None,
        policy: None,
        prealloc: None,
        prealloc_context: None,
        prealloc_threads: None,
        reserve: None,
        share: Some(true),
        x_use_canonical_path_for_ramblock_id: None,
        size: size.bytes(),
    };
    qmp::object_add(qmp::ObjectOptions::memory_backend_memfd {
        id: id.to_owned(),
        memory_backend_memfd: base.into(),
    })
}

/// Whether the guest let go of it.
async fn unplug(shared: &Shared, name: &str, deadline: Deadline) -> Result<bool, QmpError> {
    if eject(shared, name, deadline).await? != Some(UnplugOutcome::Gone) {
        return Ok(false);
    }
    shared.qmp.execute(qmp::object_del { id: format!("{name}{BACKEND}") }, deadline).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_by_whole_blocks_up_to_the_limit() {
        let mib = |n| MiB::new(n).unwrap();
        let size = |wanted| Wanted { base: mib(256), wanted: mib(wanted), most: mib(1024) };
        assert_eq!(growth(size(300), mib(256)).unwrap(), Some(mib(128)));
        assert_eq!(growth(size(512), mib(256)).unwrap(), Some(mib(256)));
        assert_eq!(growth(size(300), mib(384)).unwrap(), None);
        assert!(growth(size(1000), mib(300)).is_err(), "the last block would be too much");
    }
}
