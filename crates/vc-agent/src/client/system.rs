//! The guest's kernel, over ttrpc.

use std::time::{SystemTime, UNIX_EPOCH};

use vc_agent_protocol::agent::{
    AddSwapPathRequest, AddSwapRequest, Empty, MemHotplugByProbeRequest, OnlineCPUMemRequest,
    ReseedRandomDevRequest, SetGuestDateTimeRequest,
};
use vc_types::{Deadline, GuestPath, PciPath};

use super::Client;
use crate::{AgentError, Call, Online, System};

impl System for Client {
    async fn online(&self, what: Online, deadline: Deadline) -> Result<(), AgentError> {
        let message = OnlineCPUMemRequest {
            wait: what.wait,
            nb_cpus: what.cpus,
            cpu_only: !what.memory,
            ..Default::default()
        };
        self.calls.ask::<Empty>(Call::OnlineCPUMem, &message, Some(deadline)).await.map(drop)
    }

    async fn probe_memory(&self, addresses: &[u64], deadline: Deadline) -> Result<(), AgentError> {
        let message =
            MemHotplugByProbeRequest { mem_hotplug_probe_addr: addresses.to_vec(), ..Default::default() };
        self.calls.ask::<Empty>(Call::MemHotplugByProbe, &message, Some(deadline)).await.map(drop)
    }

    async fn add_swap(&self, disk: &PciPath, deadline: Deadline) -> Result<(), AgentError> {
        let call = Call::AddSwap;
        // The protocol has a number for each bus on the way, and so no place for a function.
        if disk.slots().iter().any(|slot| slot.function() != 0) {
            let detail = format!("{disk} has a function, for which the protocol has no place");
            return Err(AgentError::Unsendable { call, detail });
        }
        let path = disk.slots().iter().map(|slot| slot.device().into()).collect();
        let message = AddSwapRequest { pci_path: path, ..Default::default() };
        self.calls.ask::<Empty>(call, &message, Some(deadline)).await.map(drop)
    }

    async fn add_swap_file(&self, path: &GuestPath, deadline: Deadline) -> Result<(), AgentError> {
        let message = AddSwapPathRequest { path: path.to_string(), ..Default::default() };
        self.calls.ask::<Empty>(Call::AddSwapPath, &message, Some(deadline)).await.map(drop)
    }

    async fn set_time(&self, time: SystemTime, deadline: Deadline) -> Result<(), AgentError> {
        let call = Call::SetGuestDateTime;
        let since = time.duration_since(UNIX_EPOCH).ok();
        let seconds = since.and_then(|since| i64::try_from(since.as_secs()).ok());
        let (Some(since), Some(sec)) = (since, seconds) else {
            let detail = "the time is before 1970, or too far away".to_owned();
            return Err(AgentError::Unsendable { call, detail });
        };
        let usec = since.subsec_micros().into();
        let message = SetGuestDateTimeRequest { sec, usec, ..Default::default() };
        self.calls.ask::<Empty>(call, &message, Some(deadline)).await.map(drop)
    }

    async fn reseed_random(&self, entropy: &[u8], deadline: Deadline) -> Result<(), AgentError> {
        let call = Call::ReseedRandomDev;
        if entropy.is_empty() {
            let detail = "there is no entropy to send".to_owned();
            return Err(AgentError::Unsendable { call, detail });
        }
        let message = ReseedRandomDevRequest { data: entropy.to_vec(), ..Default::default() };
        self.calls.ask::<Empty>(call, &message, Some(deadline)).await.map(drop)
    }
}
