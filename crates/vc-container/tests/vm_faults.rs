//! Every call goes wrong once, of a real hypervisor and of the agent in a real guest: nothing is left in either.
//!
//! With the other tests each call goes wrong in one way; `cargo xtask soak` sets `VC_SOAK`, and it does in every way.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

mod faulty;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::Process;
use vc_agent::{AgentError, Connector, Containers};
use vc_container::{
    Container, ContainerSpec, ContainerStorage, OperationError, Sandbox, SandboxSpec, Stream, Timing,
};
use vc_hypervisor::{Hotplug, MachineSpec};
use vc_qemu::Qemu;
use vc_tests::{GuestImage, Layers, Leftovers, shell, shell_process};
use vc_types::{ContainerId, Deadline, DeviceId, HostPath};

use faulty::life::{Stack, container_lives, end, life};
use faulty::{Fault, Faults, FaultyConnector, FaultyHypervisor};

/// The calls until a sandbox is there: the launch, the connection, its creation in the guest. The one after
/// that waits for news of memory for as long as the sandbox is there.
const CALLS_OF_A_SANDBOX: u32 = 4;

/// A life has fewer calls than this.
const MANY: u32 = 60;

struct Real {
    faults: Faults,
    hypervisor: FaultyHypervisor<Qemu>,
    connector: FaultyConnector<Connector>,
    spec: SandboxSpec,
    busybox: PathBuf,
    /// What the machine has beside that of the container.
    kept: BTreeSet<DeviceId>,
    leftovers: Leftovers,
    _layers: Layers,
}

impl Real {
    fn new() -> Option<Self> {
        let image = GuestImage::find()?;
        let (leftovers, layers, faults) = (Leftovers::new(), Layers::new(), Faults::default());
        let path = |path: &Path| HostPath::new(path).unwrap();
        let dir = path(&leftovers.runtime_dir().join("box"));
        let id = "box".parse().unwrap();
        let mut machine = MachineSpec::new(id, path(&image.kernel), path(&image.initrd), dir);
        machine.accelerator = vc_tests::host::accelerator().parse().unwrap();
        // One for the observer and one for the container: what is not freed is missed at once.
        machine.hotplug_ports = 2;
        let second = Duration::from_secs;
        let timing = Timing {
            boot: second(20),
            create: second(5),
            request: second(4),
            kill: second(3),
            undo: second(6),
            ghost: second(60),
            ..Timing::default()
        };
        Some(Self {
            hypervisor: FaultyHypervisor::new(Qemu::default(), &faults),
            connector: FaultyConnector::new(Connector::default(), &faults),
            spec: SandboxSpec { timing, ..SandboxSpec::new(machine) },
            busybox: layers.busybox(),
            kept: BTreeSet::new(),
            faults,
            leftovers,
            _layers: layers,
        })
    }

    async fn create(&self, sandbox: &Sandbox, name: &str, layer: &Path) -> Result<Container, OperationError> {
        let (id, oci): (ContainerId, _) = (name.parse().unwrap(), shell("exec sleep 600"));
        let storage = ContainerStorage::of_layers(id.clone(), [layer], &oci).unwrap();
        sandbox.create_container(id, ContainerSpec { oci, storage }).await
    }
}

impl Stack for Real {
    fn faults(&self) -> &Faults {
        &self.faults
    }

    fn timing(&self) -> Timing {
        self.spec.timing
    }

    fn noise(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn sandbox(&self) -> Result<Sandbox, OperationError> {
        Sandbox::create(&self.hypervisor, &self.connector, self.spec.clone()).await
    }

    async fn container(&self, sandbox: &Sandbox) -> Result<Container, OperationError> {
        self.create(sandbox, "web", &self.busybox).await
    }

    fn process(&self) -> Process {
        shell_process("exec sleep 600")
    }

    async fn left_of_container(&self) -> Vec<String> {
        let (Some(machine), Some(agent)) = (self.hypervisor.machine(), self.connector.agent()) else {
            return Vec::new();
        };
        let soon = Deadline::after(Duration::from_secs(20));
        // A machine that has vanished has nothing.
        let plugged = machine.plugged(soon).await.unwrap_or_default();
        let mut left: Vec<_> = plugged.difference(&self.kept).map(|disk| format!("disk {disk}")).collect();
        let known = agent.container_stats(&"web".parse::<ContainerId>().unwrap(), soon).await;
        let is_gone = matches!(known, Err(AgentError::NoSuchContainer { .. }));
        if !is_gone && !plugged.is_empty() {
            left.push(format!("container web: {known:?}"));
        }
        left
    }

    fn assert_no_sandbox(&self, when: &str) {
        self.leftovers.assert_no_process();
        let left = self.leftovers.find();
        assert!(left.is_empty(), "{when}: {left:?}");
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// What the guest has of containers, as a container in it sees it: disks, mounted layers, control groups.
async fn look(observer: &Container) -> String {
    let script = "ls /sys/block /sys/fs/erofs; cut -f 1,3 /proc/cgroups";
    let look = observer.exec("look".parse().unwrap(), shell_process(script)).await.unwrap();
    let mut all = Vec::new();
    // Both to their ends: until then the guest keeps the process, and with it the name.
    for stream in [Stream::Stdout, Stream::Stderr] {
        loop {
            let some = look.read(stream, 4096).await.unwrap();
            if some.is_empty() {
                break;
            }
            all.extend(some);
        }
    }
    assert_eq!(look.wait().await.unwrap().0, 0);
    String::from_utf8(all).unwrap()
}

/// Each call in one way, or in every way.
fn faults(n: u32) -> &'static [Fault] {
    let passing = &Fault::PASSING;
    if std::env::var_os("VC_SOAK").is_some() {
        return passing;
    }
    let one = n as usize % passing.len();
    &passing[one..=one]
}

#[tokio::test]
async fn every_call_about_a_container_may_go_wrong() {
    let Some(mut real) = Real::new() else { return };
    let sandbox = real.sandbox().await.unwrap();
    let layers = Layers::new();
    let observer = real.create(&sandbox, "observer", &layers.busybox()).await.unwrap();
    observer.start().await.unwrap();
    let machine = real.hypervisor.machine().unwrap();
    real.kept = machine.plugged(Deadline::after(real.timing().request)).await.unwrap();
    drop(machine);
    let before = look(&observer).await;
    let mut met = 0;
    'all: for n in 1..MANY {
        for fault in faults(n) {
            let when = format!("{fault:?} at call {n} of a container");
            let began = Instant::now();
            real.faults.plan(n, *fault);
            container_lives(&real, &sandbox, &when, &["observer"]).await;
            let Some(call) = real.faults.met() else { break 'all };
            println!("{when}, {call}: {:?}", began.elapsed());
            met = n;
        }
    }
    real.faults.heal();
    assert!((12..MANY - 1).contains(&met), "the last was call {met}");
    assert_eq!(look(&observer).await, before, "what the guest has");
    // The guest does not end its sandbox, and QEMU does not end.
    real.faults.plan(1, Fault::Hang);
    end(&real, sandbox, "with a guest that hangs").await;
}

#[tokio::test]
async fn every_call_about_a_sandbox_may_go_wrong() {
    let Some(real) = Real::new() else { return };
    if std::env::var_os("VC_SOAK").is_none() {
        assert!(life(&real, CALLS_OF_A_SANDBOX - 1, Fault::Refuse).await);
        return;
    }
    for fault in Fault::PASSING {
        for n in 1..=CALLS_OF_A_SANDBOX {
            assert!(life(&real, n, fault).await, "{fault:?} at call {n}");
        }
    }
    for n in 1..MANY {
        if !life(&real, n, Fault::Vanish).await {
            return;
        }
    }
    panic!("a life has no end");
}
