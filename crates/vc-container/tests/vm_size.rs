//! A machine that grows, seen from a container in its guest; and one whose QEMU has no rights.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::num::NonZeroU8;
use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::Spec;
use vc_agent::{
    Agent, Connector, CreateContainer, CreateSandbox, ExitStatus, KernelModule, Online, ProcessRef, System,
};
use vc_container::{
    ContainerSpec, ContainerStorage, GuestFeatures, Sandbox, SandboxSpec, Stream, Timing, guest_spec,
};
use vc_device::{Access, BlockSpec, GuestLocation};
use vc_hypervisor::{Hotplug, Hypervisor, Machine, MachineSpec, MemoryGrowth, Resize, ResizeError};
use vc_qemu::{Qemu, QemuConfig, QemuMachine, User};
use vc_storage::{DiskPlug, Layer};
use vc_tests::{GuestImage, Layers, Leftovers, shell};
use vc_types::{ContainerId, Deadline, HostPath, MiB};

fn soon() -> Deadline {
    Deadline::after(Timing::default().boot)
}

fn spec(image: &GuestImage, dir: &Path) -> MachineSpec {
    let path = |path: &Path| HostPath::new(path).unwrap();
    MachineSpec::new("box".parse().unwrap(), path(&image.kernel), path(&image.initrd), path(dir))
}

/// vCPUs are taken into use by writing to sysfs.
fn shell_with_sysfs(script: &str) -> Spec {
    let mut spec = shell(script);
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for mount in mounts.iter_mut().filter(|mount| mount.destination() == Path::new("/sys")) {
        mount.set_options(Some(vec!["nosuid".into(), "noexec".into(), "nodev".into()]));
    }
    spec.set_mounts(Some(mounts));
    spec
}

/// Runs scripts in the guest, each in a container of its own on the same disk.
struct Guest<'a, A> {
    agent: &'a A,
    layer: Layer,
    disk: GuestLocation,
}

impl<'a, A: Agent> Guest<'a, A> {
    async fn new(agent: &'a A, machine: &QemuMachine, busybox: &Path) -> Self {
        let mut sandbox = CreateSandbox::new("box".parse().unwrap());
        sandbox.kernel_modules.push(KernelModule { name: "virtio_mem".into(), parameters: Vec::new() });
        agent.create_sandbox(&sandbox, soon()).await.unwrap();
        let layer = Layer::open(busybox).unwrap();
        let (image, name) = (layer.image().clone(), layer.name().clone());
        let disk = BlockSpec::new("disk0".parse().unwrap(), image, name, Access::ReadOnly);
        let disk = machine.plug(&disk.into(), soon()).await.unwrap();
        Self { agent, layer, disk }
    }

    async fn run(&self, name: &str, script: &str) -> String {
        let id: ContainerId = name.parse().unwrap();
        let plan = ContainerStorage::of_layers(id.clone(), [self.layer.name()], &shell(script)).unwrap().plan;
        let plug = DiskPlug { id: "disk0".parse().unwrap(), location: self.disk.clone() };
        let spec = guest_spec(shell_with_sysfs(script), &plan.rootfs, GuestFeatures::default()).unwrap();
        let container = CreateContainer {
            storages: plan.resolve(&[plug]).unwrap(),
            ..CreateContainer::new(id.clone(), spec)
        };
        self.agent.create_container(&container, soon()).await.unwrap();
        self.agent.start_container(&id, soon()).await.unwrap();
        let process = ProcessRef::init(&id);
        let mut output = Vec::new();
        while let Ok(some) = self.agent.read_stdout(&process, 4096).await {
            if some.is_empty() {
                break;
            }
            output.extend(some);
        }
        assert_eq!(self.agent.wait(&process).await.unwrap(), ExitStatus(0), "{script}");
        self.agent.remove_container(&id, soon()).await.unwrap();
        String::from_utf8(output).unwrap().trim().to_owned()
    }

    /// The memory that the guest's kernel has, in MiB.
    async fn memory(&self, name: &str) -> u64 {
        let text = self
            .run(
                name,
                "while read key kib unit; do case $key in MemTotal:) echo $kib;; esac; done < /proc/meminfo",
            )
            .await;
        text.parse::<u64>().unwrap() / 1024
    }
}

fn mib(n: u32) -> MiB {
    MiB::new(n).unwrap()
}

#[tokio::test]
async fn plugged_vcpus_and_dimms_are_used_by_the_guest() {
    let Some(image) = GuestImage::find() else { return };
    let (leftovers, layers) = (Leftovers::new(), Layers::new());
    let busybox = layers.busybox();
    let mut spec = spec(&image, leftovers.runtime_dir());
    spec.max_vcpus = NonZeroU8::new(2).unwrap();
    spec.memory_growth = MemoryGrowth::Dimms { most: mib(768) };
    let machine = Qemu::default().launch(&spec, soon()).await.unwrap();
    let connector = Connector::default();
    let agent = vc_agent::Connect::connect(&connector, machine.agent_address(), soon()).await.unwrap();
    let guest = Guest::new(&agent, &machine, &busybox).await;
    let at_start = guest.memory("before").await;

    assert_eq!(machine.resize_vcpus(spec.max_vcpus, soon()).await.unwrap(), spec.max_vcpus);
    agent.online(Online { cpus: 1, memory: false, wait: true }, soon()).await.unwrap();
    assert_eq!(guest.run("cpus", "cat /sys/devices/system/cpu/online").await, "0-1");
    let threads = machine.statistics(soon()).await.unwrap().vcpus;
    assert!(threads.len() == 2 && threads[0].thread != threads[1].thread, "{threads:?}");
    match machine.resize_vcpus(NonZeroU8::MIN, soon()).await {
        Ok(granted) => assert_eq!(granted, NonZeroU8::MIN),
        Err(ResizeError::VcpusStay { .. }) => {
            assert!(!machine.capabilities(soon()).await.unwrap().vcpu_unplug);
        }
        Err(other) => panic!("{other:?}"),
    }

    assert_eq!(machine.resize_memory(mib(512), soon()).await.unwrap(), mib(512));
    let grown = guest.memory("grown").await;
    assert!(grown >= at_start + 250, "{at_start} and then {grown} MiB");
    assert_eq!(machine.resize_memory(mib(256), soon()).await.unwrap(), mib(256), "the guest gives it back");
    let shrunk = guest.memory("shrunk").await;
    assert!(shrunk <= at_start + 5, "{at_start} and then {shrunk} MiB");

    // A kernel that takes no memory by itself has to be told.
    guest.run("hold", "echo offline > /sys/devices/system/memory/auto_online_blocks").await;
    assert_eq!(machine.resize_memory(mib(512), soon()).await.unwrap(), mib(512));
    assert!(guest.memory("held").await <= at_start + 5);
    let grown = async {
        for round in 0.. {
            agent.online(Online { cpus: 0, memory: true, wait: true }, soon()).await.unwrap();
            // It notices a DIMM some time after QEMU has plugged it.
            if guest.memory(&format!("told{round}")).await >= at_start + 250 {
                return;
            }
        }
    };
    tokio::time::timeout(soon().remaining(), grown).await.unwrap();
    machine.stop(soon()).await.unwrap();
    leftovers.assert_none();
}

#[tokio::test]
async fn virtio_mem_grows_and_shrinks_with_the_guest() {
    let Some(image) = GuestImage::find() else { return };
    let (leftovers, layers) = (Leftovers::new(), Layers::new());
    let busybox = layers.busybox();
    let mut spec = spec(&image, leftovers.runtime_dir());
    spec.memory_growth = MemoryGrowth::VirtioMem { most: mib(768) };
    let machine = Qemu::default().launch(&spec, soon()).await.unwrap();
    let connector = Connector::default();
    let agent = vc_agent::Connect::connect(&connector, machine.agent_address(), soon()).await.unwrap();
    let guest = Guest::new(&agent, &machine, &busybox).await;
    let at_start = guest.memory("before").await;
    assert_eq!(machine.resize_memory(mib(512), soon()).await.unwrap(), mib(512));
    let grown = guest.memory("grown").await;
    assert!(grown >= at_start + 250, "{at_start} and then {grown} MiB");
    // What the guest uses of it, it may keep.
    let granted = machine.resize_memory(mib(256), Deadline::after(Duration::from_secs(20))).await.unwrap();
    assert!((mib(256)..mib(384)).contains(&granted), "{granted}");
    machine.stop(soon()).await.unwrap();
    leftovers.assert_none();
}

#[tokio::test]
async fn a_container_runs_with_a_qemu_without_rights() {
    if !vc_tests::root() {
        return;
    }
    let Some(image) = GuestImage::find() else { return };
    let (leftovers, layers) = (Leftovers::new(), Layers::new());
    let qemu =
        Qemu::new(QemuConfig { user: Some(User { uid: 64_321, gid: 64_322 }), ..QemuConfig::default() });
    let machine = spec(&image, &leftovers.runtime_dir().join("box"));
    let spec = SandboxSpec::new(machine);
    let sandbox = Sandbox::create(&qemu, &Connector::default(), spec).await.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", leftovers.qemu().unwrap())).unwrap();
    assert!(status.contains("Uid:\t64321\t64321\t64321\t64321"), "{status}");
    let id: ContainerId = "c".parse().unwrap();
    let oci = shell("echo ready");
    let storage = ContainerStorage::of_layers(id.clone(), [layers.busybox()], &oci).unwrap();
    let container = ContainerSpec { oci, storage };
    let container = sandbox.create_container(id, container).await.unwrap();
    container.start().await.unwrap();
    assert_eq!(container.read(Stream::Stdout, 100).await.unwrap(), b"ready\n");
    assert_eq!(container.wait().await.unwrap(), ExitStatus(0));
    sandbox.stop().await.unwrap();
    leftovers.assert_none();
}
