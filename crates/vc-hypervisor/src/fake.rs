//! A working model of a hypervisor, for the tests of whoever uses the port.
//!
//! It keeps what a real one would hold (machines, plugged devices), refuses what a real one refuses,
//! and can be told to fail or to hang at its n-th call.

mod hotplug;
mod resize;

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroU32};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use vc_device::{Capacity, Topology};
use vc_types::{AgentAddress, Deadline, DeviceId, HostPath, MiB, SandboxId};

use crate::{
    Capabilities, ControlError, ExitCause, Hypervisor, LaunchError, Machine, MachineExit, MachineSpec,
    MemoryGrowth, ShutdownCause, Statistics, StopError, VcpuStatistics,
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

/// A machine that runs; what has a hold of it may come and go.
#[derive(Clone, Debug)]
struct Running {
    topology: Arc<Mutex<Topology>>,
    size: Arc<Mutex<Size>>,
    /// The size of each disk of one image, in bytes.
    disks: Arc<Mutex<BTreeMap<DeviceId, u64>>>,
    exit: Arc<watch::Sender<Option<MachineExit>>>,
}

impl Running {
    fn devices(&self) -> Vec<DeviceId> {
        let topology = self.topology.lock().expect("no test thread panics while it holds the topology");
        topology.plugged().into_iter().map(|(_, device)| device.clone()).collect()
    }

    fn disks(&self) -> MutexGuard<'_, BTreeMap<DeviceId, u64>> {
        self.disks.lock().expect("no test thread panics while it holds the disks")
    }
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
        world.machines.iter().map(|(id, machine)| (id.clone(), machine.devices())).collect()
    }

    /// How large the machine believes the disk to be, in bytes; `None` when it has no such disk.
    pub fn disk_size(&self, machine: &SandboxId, disk: &DeviceId) -> Option<u64> {
        self.world().machines.get(machine)?.disks().get(disk).copied()
    }

    /// Ends a running machine as a crash would.
    ///
    /// # Panics
    /// When there is no such machine.
    pub fn crash(&self, id: &SandboxId) {
        let machine = self.world().machines.remove(id).expect("the machine runs");
        end(&machine.exit, exit(ExitCause::Signaled(9)));
    }

    fn machine(&self, spec: &MachineSpec, running: Running) -> FakeMachine {
        FakeMachine {
            hypervisor: self.clone(),
            id: spec.id.clone(),
            address: AgentAddress::Unix { socket: spec.runtime_dir.clone() },
            running,
            is_let_go: AtomicBool::new(false),
        }
    }

    /// Counts a call to end a machine; fails it when it is the chosen one.
    async fn ended(&self, deadline: Deadline) -> Result<(), StopError> {
        match self.call() {
            Some(Fault::Hang) => {
                tokio::time::sleep(deadline.remaining()).await;
                Err(StopError::StillRunning { program: "fake", pid: 0 })
            }
            Some(Fault::Fail) => {
                let path = HostPath::new("/fake").expect("absolute");
                Err(StopError::Leftover { path, source: std::io::Error::other("fault asked for") })
            }
            Some(Fault::Die) | None => Ok(()),
        }
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
        let capacity = Capacity {
            root_ports: spec.hotplug_ports,
            bridges: spec.pci_bridges,
            scsi_controller: true,
            ..Capacity::default()
        };
        let topology = Topology::new(capacity)?;
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
        let running = Running {
            topology: Arc::new(Mutex::new(topology)),
            size: Arc::new(Mutex::new(Size::of(spec))),
            disks: Arc::default(),
            exit: Arc::new(watch::channel(None).0),
        };
        self.world().machines.insert(spec.id.clone(), running.clone());
        Ok(self.machine(spec, running))
    }

    async fn reattach(
        &self,
        spec: &MachineSpec,
        handle: &str,
        deadline: Deadline,
    ) -> Result<Option<FakeMachine>, LaunchError> {
        match self.call() {
            None => {}
            Some(Fault::Hang) => {
                tokio::time::sleep(deadline.remaining()).await;
                return Err(LaunchError::Deadline { step: "waiting for the fake" });
            }
            Some(Fault::Fail | Fault::Die) => return Err(LaunchError::Control("fault asked for".into())),
        }
        let running = self.world().machines.get(&spec.id).filter(|_| handle == spec.id.as_str()).cloned();
        Ok(running.map(|running| self.machine(spec, running)))
    }

    async fn clean_up(&self, spec: &MachineSpec, deadline: Deadline) -> Result<(), StopError> {
        self.ended(deadline).await?;
        if let Some(machine) = self.world().machines.remove(&spec.id) {
            end(&machine.exit, exit(ExitCause::Signaled(9)));
        }
        Ok(())
    }
}

/// A machine of [`FakeHypervisor`].
#[derive(Debug)]
pub struct FakeMachine {
    hypervisor: FakeHypervisor,
    id: SandboxId,
    address: AgentAddress,
    running: Running,
    is_let_go: AtomicBool,
}

/// What a machine has, and may have.
#[derive(Clone, Copy, Debug)]
struct Size {
    vcpus: NonZeroU8,
    least_vcpus: NonZeroU8,
    most_vcpus: NonZeroU8,
    memory: MiB,
    least_memory: MiB,
    most_memory: MiB,
}

impl Size {
    fn of(spec: &MachineSpec) -> Self {
        let most_memory = match spec.memory_growth {
            MemoryGrowth::None => spec.memory,
            MemoryGrowth::Dimms { most } | MemoryGrowth::VirtioMem { most } => most,
        };
        Self {
            vcpus: spec.vcpus,
            least_vcpus: spec.vcpus,
            most_vcpus: spec.max_vcpus.max(spec.vcpus),
            memory: spec.memory,
            least_memory: spec.memory,
            most_memory,
        }
    }
}

impl FakeMachine {
    fn die(&self) {
        self.hypervisor.world().machines.remove(&self.id);
        end(&self.running.exit, exit(ExitCause::Signaled(9)));
    }

    fn size(&self) -> MutexGuard<'_, Size> {
        self.running.size.lock().expect("no test thread panics while it holds the size")
    }

    /// Counts a call to do `step`; fails it when it is the chosen one, or the machine is gone.
    async fn controlled(&self, step: &'static str, deadline: Deadline) -> Result<(), ControlError> {
        let fault = self.hypervisor.call();
        if fault == Some(Fault::Die) {
            self.die();
        }
        if let Some(exit) = self.gone() {
            return Err(ControlError::MachineGone { step, exit });
        }
        match fault {
            Some(Fault::Fail) => Err(ControlError::Refused { step, source: "fault asked for".into() }),
            Some(Fault::Hang) => {
                tokio::time::sleep(deadline.remaining()).await;
                Err(ControlError::Unknown { step })
            }
            Some(Fault::Die) | None => Ok(()),
        }
    }

    fn gone(&self) -> Option<MachineExit> {
        self.running.exit.borrow().clone()
    }

    fn topology(&self) -> MutexGuard<'_, Topology> {
        self.running.topology.lock().expect("no test thread panics while it holds the topology")
    }
}

impl Drop for FakeMachine {
    fn drop(&mut self) {
        if !*self.is_let_go.get_mut() {
            self.hypervisor.world().machines.remove(&self.id);
        }
    }
}

impl Machine for FakeMachine {
    fn handle(&self) -> String {
        self.id.to_string()
    }

    fn let_go(&self) {
        self.is_let_go.store(true, Ordering::Relaxed);
    }

    fn agent_address(&self) -> &AgentAddress {
        &self.address
    }

    fn console_tail(&self) -> String {
        String::new()
    }

    async fn capabilities(&self, deadline: Deadline) -> Result<Capabilities, ControlError> {
        self.controlled("say what it can do", deadline).await?;
        let version = "the fake".to_owned();
        Ok(Capabilities {
            version,
            hardware: false,
            virtio_mem: true,
            virtio_pmem: true,
            iommufd: true,
            vcpu_unplug: true,
        })
    }

    async fn statistics(&self, deadline: Deadline) -> Result<Statistics, ControlError> {
        self.controlled("tell its statistics", deadline).await?;
        let Size { vcpus, memory, .. } = *self.size();
        let vcpu = |index| VcpuStatistics { index, thread: index + 1, cpu_time: Duration::ZERO };
        let vcpus = (0..vcpus.get().into()).map(vcpu).collect();
        Ok(Statistics { vcpus, guest_memory: memory.bytes(), ..Statistics::default() })
    }

    async fn pause(&self, deadline: Deadline) -> Result<(), ControlError> {
        self.controlled("pause", deadline).await
    }

    async fn resume(&self, deadline: Deadline) -> Result<(), ControlError> {
        self.controlled("resume", deadline).await
    }

    async fn exited(&self) -> MachineExit {
        let mut exit = self.running.exit.subscribe();
        let known = exit.wait_for(Option::is_some).await.expect("self holds the sender");
        known.clone().expect("waited until it is some")
    }

    async fn power_down(&self, _: Deadline, deadline: Deadline) -> Result<MachineExit, StopError> {
        self.stop(deadline).await
    }

    async fn stop(&self, deadline: Deadline) -> Result<MachineExit, StopError> {
        self.hypervisor.ended(deadline).await?;
        self.hypervisor.world().machines.remove(&self.id);
        let shutdown = Some(ShutdownCause::HostRequest);
        end(&self.running.exit, MachineExit { shutdown, ..exit(ExitCause::Exited(0)) });
        Ok(self.exited().await)
    }
}

/// The first end is the one that counts.
fn end(known: &watch::Sender<Option<MachineExit>>, how: MachineExit) {
    known.send_if_modified(|known| {
        let first = known.is_none();
        known.get_or_insert(how);
        first
    });
}

fn exit(cause: ExitCause) -> MachineExit {
    MachineExit { cause, shutdown: None, stderr_tail: String::new(), console_tail: String::new() }
}
