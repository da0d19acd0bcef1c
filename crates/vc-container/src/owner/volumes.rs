//! What a CSI driver asks of a volume that it has left to the runtime, while a container uses it.

use vc_agent::{Agent, VolumeStats};
use vc_hypervisor::Machine;
use vc_storage::guest_volume;
use vc_types::{DeviceId, GuestPath, HostPath};

use crate::error::Cause;
use crate::guest::Guest;

/// A volume's disk in the machine.
struct Disk {
    device: DeviceId,
    /// How many bytes it has on the host now.
    bytes: u64,
    /// Where the guest has what is on it.
    at: GuestPath,
}

impl<M: Machine, A: Agent> Guest<M, A> {
    pub(super) async fn volume_stats(&self, volume: &HostPath) -> Result<VolumeStats, Cause> {
        let Disk { at, .. } = self.disk(volume).await?;
        self.ask(self.agent.volume_stats(&at, self.timing.request())).await
    }

    /// Has the disk grow in the machine, then the file system on it. What is done already is done again at no harm.
    pub(super) async fn resize_volume(&self, volume: &HostPath, wanted: u64) -> Result<(), Cause> {
        let Disk { device, bytes, at } = self.disk(volume).await?;
        if wanted > bytes {
            return Err(Cause::SmallDisk { bytes });
        }
        self.machine.grow_disk(&device, bytes, self.timing.request()).await?;
        self.ask(self.agent.resize_volume(&at, wanted, self.timing.request())).await
    }

    async fn disk(&self, volume: &HostPath) -> Result<Disk, Cause> {
        let (identity, bytes) = self.volumes.get(volume)?.disk().await?;
        let device = self.devices.plugged_as(&identity).ok_or(Cause::NoSuchVolume)?;
        Ok(Disk { device, bytes, at: guest_volume(&identity) })
    }
}
