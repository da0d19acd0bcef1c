//! A working model of a hypervisor, for the tests of whoever uses the port.
//!
//! It keeps what a real one would hold (machines, plugged devices), refuses what a real one refuses,
//! and can be told to fail or to hang at its n-th call.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use vc_device::{BlockSpec, RootPorts};
use vc_types::{AgentAddress, Deadline, DeviceId, HostPath, PciPath, SandboxId};

use crate::{
    ExitCause, Hotplug, Hypervisor, LaunchError, Machine, MachineExit, MachineSpec, PlugError, StopError,
    UnplugError,
};

/// What goes wrong at the chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails at once and has changed nothing.
    Fail,
    /// The call has no answer until its deadline.
    Hang,
    /// The machine dies during the call.
    Die,
}

/// A hypervisor whose machines are entries in a table.
#[derive(Clone, Debug, Default)]
pub struct FakeHypervisor {
    world: Arc<Mutex<World>>,
}

#[derive(Debug, Default)]
struct World {
    calls: u32,
    fault: Option<(u32, Fault)>,
    machines: BTreeMap<SandboxId, Running>,
}

#[derive(Debug)]
struct Running {
    devices: Vec<DeviceId>,
    exit: Arc<watch::Sender<Option<MachineExit>>>,
}

impl FakeHypervisor {
    /// One whose `n`-th call, counted from 1, meets `fault`.
    pub fn with_fault(n: NonZeroU32, fault: Fault) -> Self {
        let fake = Self::default();
        fake.world().fault = Some((n.get(), fault));
        fake
    }

    /// How many calls were made.
    pub fn calls(&self) -> u32 {
        self.world().calls
    }

    /// The running machines and their devices.
    pub fn machines(&self) -> BTreeMap<SandboxId, Vec<DeviceId>> {
        let world = self.world();
        world.machines.iter().map(|(id, machine)| (id.clone(), machine.devices.clone())).collect()
    }

    /// Ends a running machine as a crash would.
    ///
    /// # Panics
    /// When there is no such machine.
    pub fn crash(&self, id: &SandboxId) {
        let machine = self.world().machines.remove(id).expect("the machine runs");
        end(&machine.exit, ExitCause::Signaled(9));
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no test thread panics while it holds the world")
    }

    /// Counts a call; says what goes wrong with it.
    fn call(&self) -> Option<Fault> {
        let mut world = self.world();
        world.calls += 1;
        let now = world.calls;
        world.fault.and_then(|(at, fault)| (at == now).then_some(fault))
    }
}

impl Hypervisor for FakeHypervisor {
    type Machine = FakeMachine;

    async fn launch(&self, spec: &MachineSpec, deadline: Deadline) -> Result<FakeMachine, LaunchError> {
        let ports = RootPorts::new(spec.hotplug_ports)?;
        match self.call() {
            None => {}
            Some(Fault::Hang) => {
                tokio::time::sleep(deadline.remaining()).await;
                return Err(LaunchError::Deadline { step: "waiting for the fake" });
            }
            Some(Fault::Fail | Fault::Die) => {
                return Err(LaunchError::Exited { program: "fake", exit: exit(ExitCause::Exited(1)) });
            }
        }
        let exit_sender = Arc::new(watch::channel(None).0);
        let machine = Running { devices: Vec::new(), exit: exit_sender.clone() };
        self.world().machines.insert(spec.id.clone(), machine);
        Ok(FakeMachine {
            hypervisor: self.clone(),
            id: spec.id.clone(),
            address: AgentAddress::Unix { socket: spec.runtime_dir.clone() },
            ports: Mutex::new(ports),
            exit: exit_sender,
        })
    }
}

/// A machine of [`FakeHypervisor`].
#[derive(Debug)]
pub struct FakeMachine {
    hypervisor: FakeHypervisor,
    id: SandboxId,
    address: AgentAddress,
    ports: Mutex<RootPorts>,
    exit: Arc<watch::Sender<Option<MachineExit>>>,
}

impl FakeMachine {
    fn die(&self) {
        self.hypervisor.world().machines.remove(&self.id);
        end(&self.exit, ExitCause::Signaled(9));
    }

    fn gone(&self) -> Option<MachineExit> {
        self.exit.borrow().clone()
    }

    fn ports(&self) -> MutexGuard<'_, RootPorts> {
        self.ports.lock().expect("no test thread panics while it holds the ports")
    }

    fn publish_devices(&self) {
        let devices = self.ports().devices().cloned().collect();
        if let Some(entry) = self.hypervisor.world().machines.get_mut(&self.id) {
            entry.devices = devices;
        }
    }
}

impl Drop for FakeMachine {
    fn drop(&mut self) {
        self.hypervisor.world().machines.remove(&self.id);
    }
}

impl Machine for FakeMachine {
    fn agent_address(&self) -> &AgentAddress {
        &self.address
    }

    async fn exited(&self) -> MachineExit {
        let mut exit = self.exit.subscribe();
        let known = exit.wait_for(Option::is_some).await.expect("self holds the sender");
        known.clone().expect("waited until it is some")
    }

    async fn stop(&self, deadline: Deadline) -> Result<MachineExit, StopError> {
        match self.hypervisor.call() {
            Some(Fault::Hang) => {
                tokio::time::sleep(deadline.remaining()).await;
                return Err(StopError::StillRunning { program: "fake", pid: 0 });
            }
            Some(Fault::Fail) => {
                let path = HostPath::new("/fake").expect("absolute");
                return Err(StopError::Leftover { path, source: std::io::Error::other("fault asked for") });
            }
            Some(Fault::Die) | None => {}
        }
        self.die();
        Ok(self.exited().await)
    }
}

impl Hotplug for FakeMachine {
    async fn plug_block(&self, spec: &BlockSpec, deadline: Deadline) -> Result<PciPath, PlugError> {
        let device = spec.id.clone();
        let fault = self.hypervisor.call();
        if fault == Some(Fault::Die) {
            self.die();
        }
        if let Some(exit) = self.gone() {
            return Err(PlugError::MachineGone { device, exit });
        }
        if fault == Some(Fault::Fail) {
            let source = "fault asked for".into();
            return Err(PlugError::Refused { device, step: "plug", source });
        }
        let taken = self.ports().take(&device);
        let port = taken.map_err(|source| PlugError::Port { device: device.clone(), source })?;
        self.publish_devices();
        if fault == Some(Fault::Hang) {
            tokio::time::sleep(deadline.remaining()).await;
            return Err(PlugError::Unknown { device, step: "plug" });
        }
        Ok(port.device_path())
    }

    async fn unplug(&self, id: &DeviceId, deadline: Deadline) -> Result<(), UnplugError> {
        let device = id.clone();
        let fault = self.hypervisor.call();
        if fault == Some(Fault::Die) {
            self.die();
        }
        if let Some(exit) = self.gone() {
            return Err(UnplugError::MachineGone { device, exit });
        }
        match fault {
            Some(Fault::Fail) => return Err(UnplugError::GuestRefused { device }),
            Some(Fault::Hang) => {
                tokio::time::sleep(deadline.remaining()).await;
                return Err(UnplugError::GuestHoldsOn { device });
            }
            Some(Fault::Die) | None => {}
        }
        let given = self.ports().give_back(id);
        given.map_err(|source| UnplugError::NotPlugged { device, source })?;
        self.publish_devices();
        Ok(())
    }
}

/// The first end is the one that counts.
fn end(known: &watch::Sender<Option<MachineExit>>, cause: ExitCause) {
    known.send_if_modified(|known| {
        let first = known.is_none();
        known.get_or_insert_with(|| exit(cause));
        first
    });
}

fn exit(cause: ExitCause) -> MachineExit {
    MachineExit { cause, stderr_tail: String::new(), console_tail: String::new() }
}
