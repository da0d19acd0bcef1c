//! The volumes of CSI drivers that a sandbox uses: each driver is told which sandbox has its volume, so that it can
//! ask that one how full the volume is, or have it grow.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use vc_device::DeviceIdentity;
use vc_storage::{DirectVolumes, InvalidDirectVolume, disk_of_volume};
use vc_types::{HostPath, SandboxId};

use super::copy::blocking;
use crate::error::{Cause, Leftover, Step};

/// A volume, and where its driver left it to the runtime.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VolumeUse {
    pub(crate) store: PathBuf,
    pub(crate) volume: HostPath,
}

impl VolumeUse {
    /// Has `work` done with the files of the store.
    async fn with(
        &self,
        work: impl FnOnce(&DirectVolumes, &HostPath) -> Result<(), InvalidDirectVolume> + Send + 'static,
    ) -> Result<(), Cause> {
        let Self { store, volume } = self.clone();
        Ok(blocking(move || work(&DirectVolumes::below(store), &volume)).await?)
    }

    /// Which disk it is, and how many bytes that has on the host now.
    pub(crate) async fn disk(&self) -> Result<(DeviceIdentity, u64), Cause> {
        let Self { store, volume } = self.clone();
        let look = move || -> Result<_, Cause> {
            let found = DirectVolumes::below(store).find(&volume)?.ok_or(Cause::NoSuchVolume)?;
            Ok(disk_of_volume(&found)?)
        };
        blocking(look).await
    }

    /// Takes back what was told to the driver. What was not told is fine.
    pub(crate) async fn forget(&self, sandbox: &SandboxId) -> Option<Leftover> {
        let sandbox = sandbox.clone();
        let forgotten = self.with(move |store, volume| store.forget(volume, &sandbox)).await;
        forgotten.err().map(|cause| Leftover { step: Step::Volume(self.volume.clone()), cause })
    }
}

/// All such volumes of a sandbox.
#[derive(Debug)]
pub(crate) struct Volumes {
    sandbox: SandboxId,
    /// How many creations have asked for each and not failed.
    used: Mutex<BTreeMap<VolumeUse, usize>>,
}

impl Volumes {
    /// Those that were written down are used until the sandbox ends.
    pub(crate) fn new(sandbox: SandboxId, known: Vec<VolumeUse>) -> Self {
        Self { sandbox, used: Mutex::new(known.into_iter().map(|volume| (volume, 1)).collect()) }
    }

    /// All of them, to be written down.
    pub(crate) fn all(&self) -> Vec<VolumeUse> {
        self.used().keys().cloned().collect()
    }

    /// The one of this path.
    pub(crate) fn get(&self, volume: &HostPath) -> Result<VolumeUse, Cause> {
        self.used().keys().find(|used| used.volume == *volume).cloned().ok_or(Cause::NoSuchVolume)
    }

    /// Has one for a creation. Its driver is told by [`Volumes::tell`], once this was written down.
    pub(crate) fn claim(&self, volume: VolumeUse) {
        *self.used().entry(volume).or_default() += 1;
    }

    pub(crate) async fn tell(&self, volume: &VolumeUse) -> Result<(), Cause> {
        let sandbox = self.sandbox.clone();
        volume.with(move |store, volume| store.record(volume, &sandbox)).await
    }

    /// Takes back the claim of a creation that failed.
    pub(crate) async fn release(&self, volume: &VolumeUse) -> Result<(), Cause> {
        let is_last = self.used().get(volume) == Some(&1);
        if is_last && let Some(left) = volume.forget(&self.sandbox).await {
            return Err(left.cause);
        }
        let mut used = self.used();
        match used.get_mut(volume) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(used.remove(volume)),
        }
        Ok(())
    }

    /// Takes back all that was told, once the machine has ended. May be called again.
    pub(crate) async fn end(&self) -> Vec<Leftover> {
        let mut left = Vec::new();
        for volume in self.all() {
            match volume.forget(&self.sandbox).await {
                None => drop(self.used().remove(&volume)),
                Some(failed) => left.push(failed),
            }
        }
        left
    }

    fn used(&self) -> MutexGuard<'_, BTreeMap<VolumeUse, usize>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
