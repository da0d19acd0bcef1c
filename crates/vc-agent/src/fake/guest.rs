//! The guest as a whole, its kernel, its network and its files, served by the model.

use std::time::SystemTime;

use vc_types::{ContainerId, Deadline, GuestPath, PciPath};

use super::control::{FakeAgent, State};
use super::world::refused;
use crate::{
    AgentError, Call, CopyFile, CreateSandbox, Diagnostic, Guest, GuestDetails, Interface, IpFamily,
    Neighbor, Network, Online, Route, Storage, StorageDriver, System, VolumeStats, Volumes,
};

type Done<T = ()> = Result<T, AgentError>;

impl Guest for FakeAgent {
    async fn check(&self, deadline: Deadline) -> Done {
        self.serve(Call::Check, String::new(), Some(deadline), |_| Some(Ok(()))).await
    }

    async fn details(&self, deadline: Deadline) -> Done<GuestDetails> {
        let act = |state: &mut State| {
            Some(Ok(GuestDetails {
                version: "fake".to_owned(),
                devices: state.world.device_kinds.clone(),
                features: state.world.features.iter().map(|feature| feature.name().to_owned()).collect(),
                storages: StorageDriver::ALL.map(|driver| driver.name().to_owned()).into(),
                memory_block: Some(128 << 20),
                ..GuestDetails::default()
            }))
        };
        self.serve(Call::GetGuestDetails, String::new(), Some(deadline), act).await
    }

    async fn create_sandbox(&self, request: &CreateSandbox, deadline: Deadline) -> Done {
        let act = |state: &mut State| Some(state.world.create_sandbox(request));
        self.serve(Call::CreateSandbox, request.id.to_string(), Some(deadline), act).await
    }

    async fn destroy_sandbox(&self, deadline: Deadline) -> Done {
        let act = |state: &mut State| {
            let done = state.world.destroy_sandbox();
            // The guest powers off.
            state.is_gone = done.is_ok();
            Some(done)
        };
        self.serve(Call::DestroySandbox, String::new(), Some(deadline), act).await
    }

    async fn metrics(&self, deadline: Deadline) -> Done<String> {
        let act = |state: &mut State| {
            let containers = state.world.left().containers.len();
            Some(Ok(format!("# TYPE fake_containers gauge\nfake_containers {containers}\n")))
        };
        self.serve(Call::GetMetrics, String::new(), Some(deadline), act).await
    }

    async fn diagnostic(
        &self,
        container: &ContainerId,
        what: Diagnostic,
        deadline: Deadline,
    ) -> Done<String> {
        let on = format!("{} of {container}", what.name());
        let act = |state: &mut State| Some(state.world.diagnostic(container));
        self.serve(Call::GetDiagnosticData, on, Some(deadline), act).await
    }

    async fn oom_event(&self) -> Done<ContainerId> {
        let act = |state: &mut State| state.world.oom_events.pop_front().map(Ok);
        self.serve(Call::GetOOMEvent, String::new(), None, act).await
    }
}

impl System for FakeAgent {
    async fn online(&self, what: Online, deadline: Deadline) -> Done {
        let act = |state: &mut State| match state.world.plugged_processors.checked_sub(what.cpus) {
            Some(left) => {
                state.world.plugged_processors = left;
                Some(Ok(()))
            }
            None => {
                let detail = format!("{} processors do not appear", what.cpus);
                Some(refused(Call::OnlineCPUMem, &detail))
            }
        };
        self.serve(Call::OnlineCPUMem, format!("{what:?}"), Some(deadline), act).await
    }

    async fn probe_memory(&self, addresses: &[u64], deadline: Deadline) -> Done {
        let call = Call::MemHotplugByProbe;
        let act = |_: &mut State| Some(refused(call, "the kernel notices memory by itself"));
        self.serve(call, format!("{addresses:x?}"), Some(deadline), act).await
    }

    async fn add_swap(&self, disk: &PciPath, deadline: Deadline) -> Done {
        let act = |_: &mut State| Some(refused(Call::AddSwap, &format!("there is no disk {disk}")));
        self.serve(Call::AddSwap, disk.to_string(), Some(deadline), act).await
    }

    async fn add_swap_file(&self, path: &GuestPath, deadline: Deadline) -> Done {
        let act = |_: &mut State| Some(refused(Call::AddSwapPath, &format!("there is no swap at {path}")));
        self.serve(Call::AddSwapPath, path.to_string(), Some(deadline), act).await
    }

    async fn set_time(&self, time: SystemTime, deadline: Deadline) -> Done {
        let act = |state: &mut State| {
            state.world.time = Some(time);
            Some(Ok(()))
        };
        self.serve(Call::SetGuestDateTime, String::new(), Some(deadline), act).await
    }

    async fn reseed_random(&self, entropy: &[u8], deadline: Deadline) -> Done {
        let call = Call::ReseedRandomDev;
        let act = |_: &mut State| match entropy.len() {
            0 => {
                let detail = "there is no entropy to send".to_owned();
                Some(Err(AgentError::Unsendable { call, detail }))
            }
            _ => Some(Ok(())),
        };
        self.serve(call, format!("{} bytes", entropy.len()), Some(deadline), act).await
    }
}

impl Network for FakeAgent {
    async fn update_interface(&self, interface: &Interface, deadline: Deadline) -> Done<Interface> {
        let act = |state: &mut State| Some(state.world.net.update_interface(interface));
        self.serve(Call::UpdateInterface, interface.name.clone(), Some(deadline), act).await
    }

    async fn interfaces(&self, deadline: Deadline) -> Done<Vec<Interface>> {
        let act = |state: &mut State| Some(Ok(state.world.net.interfaces.clone()));
        self.serve(Call::ListInterfaces, String::new(), Some(deadline), act).await
    }

    async fn update_routes(&self, routes: &[Route], deadline: Deadline) -> Done<Vec<Route>> {
        let act = |state: &mut State| Some(state.world.net.update_routes(routes));
        self.serve(Call::UpdateRoutes, format!("{} routes", routes.len()), Some(deadline), act).await
    }

    async fn routes(&self, deadline: Deadline) -> Done<Vec<Route>> {
        let act = |state: &mut State| Some(Ok(state.world.net.routes()));
        self.serve(Call::ListRoutes, String::new(), Some(deadline), act).await
    }

    async fn add_neighbors(&self, neighbors: &[Neighbor], deadline: Deadline) -> Done {
        let act = |state: &mut State| Some(state.world.net.add_neighbors(neighbors));
        self.serve(Call::AddARPNeighbors, format!("{} neighbours", neighbors.len()), Some(deadline), act)
            .await
    }

    async fn iptables(&self, family: IpFamily, deadline: Deadline) -> Done<Vec<u8>> {
        let act = |state: &mut State| Some(Ok(state.world.net.rules(family)));
        self.serve(Call::GetIPTables, format!("{family:?}"), Some(deadline), act).await
    }

    async fn set_iptables(&self, family: IpFamily, rules: &[u8], deadline: Deadline) -> Done<Vec<u8>> {
        let act = |state: &mut State| Some(state.world.net.set_rules(family, rules));
        self.serve(Call::SetIPTables, format!("{family:?}"), Some(deadline), act).await
    }
}

impl Volumes for FakeAgent {
    async fn copy_file(&self, request: &CopyFile<'_>, deadline: Deadline) -> Done {
        let act = |state: &mut State| Some(state.world.files.copy(request));
        self.serve(Call::CopyFile, request.path.to_string(), Some(deadline), act).await
    }

    async fn volume_stats(&self, path: &GuestPath, deadline: Deadline) -> Done<VolumeStats> {
        let act = |state: &mut State| Some(state.world.mounts.stats(path));
        self.serve(Call::GetVolumeStats, path.to_string(), Some(deadline), act).await
    }

    async fn resize_volume(&self, path: &GuestPath, bytes: u64, deadline: Deadline) -> Done {
        let act = |state: &mut State| Some(state.world.mounts.resize(path, bytes));
        self.serve(Call::ResizeVolume, format!("{path} to {bytes}"), Some(deadline), act).await
    }

    async fn update_ephemeral_mounts(&self, storages: &[Storage], deadline: Deadline) -> Done {
        let act = |state: &mut State| Some(state.world.mounts.update(storages));
        let on = format!("{} mounts", storages.len());
        self.serve(Call::UpdateEphemeralMounts, on, Some(deadline), act).await
    }

    async fn remove_stale_shares(&self, deadline: Deadline) -> Done {
        let call = Call::RemoveStaleVirtiofsShareMounts;
        self.serve(call, String::new(), Some(deadline), |_| Some(Ok(()))).await
    }
}
