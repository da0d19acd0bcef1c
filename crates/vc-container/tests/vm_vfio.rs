//! Devices of the host that a machine gets for itself, by VFIO. The host is real or nested; the devices are those that
//! `VC_TEST_VFIO` names, and they are only read.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::{LinuxDeviceCgroupBuilder, LinuxResourcesBuilder, MountBuilder, Spec};
use vc_agent::{
    Connect, Connector, Containers, CreateContainer, CreateSandbox, ExitStatus, Guest, ProcessRef,
};
use vc_agent::{Processes, Streams};
use vc_container::{ContainerStorage, GuestFeatures, guest_spec};
use vc_device::{Access, BlockSpec, VfioFunction, VfioHandle, VfioPciSpec};
use vc_hypervisor::{Hotplug, Hypervisor, Machine, MachineSpec, PlugError};
use vc_qemu::{Qemu, QemuMachine};
use vc_storage::{DiskPlug, Layer};
use vc_tests::vfio::PciFunction;
use vc_tests::{GuestImage, Layers, Leftovers, shell};
use vc_types::{ContainerId, Deadline, DeviceId, HostPath};

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(120))
}

/// How much of a disk is compared.
const COMPARED: usize = 1 << 20;

/// The first disk that the guest finds, read in the container through the guest's devices.
const READ: &str = "until [ -b /guest/nvme0n1 ]; do :; done; head -c 1048576 /guest/nvme0n1";

struct Bench {
    layer: Layer,
    leftovers: Leftovers,
    machine: QemuMachine,
    _layers: Layers,
}

impl Bench {
    async fn new(image: &GuestImage) -> Self {
        let (layers, leftovers) = (Layers::new(), Leftovers::new());
        let layer = Layer::open(layers.busybox()).unwrap();
        let path = |path: &Path| HostPath::new(path).unwrap();
        let dir = path(leftovers.runtime_dir());
        let mut spec =
            MachineSpec::new("box".parse().unwrap(), path(&image.kernel), path(&image.initrd), dir);
        spec.hotplug_ports = 4;
        spec.accelerator = vc_tests::host::accelerator().parse().unwrap();
        let machine = Qemu::default().launch(&spec, deadline()).await.unwrap();
        Self { layer, leftovers, machine, _layers: layers }
    }

    /// Runs a container that writes the first bytes of the guest's NVMe disk.
    async fn read_in_a_container(&self) -> Vec<u8> {
        let agent = Connector::default().connect(self.machine.agent_address(), deadline()).await.unwrap();
        agent.create_sandbox(&CreateSandbox::new("sandbox".parse().unwrap()), deadline()).await.unwrap();
        let id: ContainerId = "reader".parse().unwrap();
        let plan = ContainerStorage::of_layers(id.clone(), [self.layer.name()], &shell(READ)).unwrap().plan;
        let disk: DeviceId = "layer0".parse().unwrap();
        let (image, name) = (self.layer.image().clone(), self.layer.name().clone());
        let block = BlockSpec::new(disk.clone(), image, name, Access::ReadOnly);
        let location = self.machine.plug(&block.into(), deadline()).await.unwrap();
        let spec = guest_spec(shell(READ), &plan.rootfs, GuestFeatures::default()).unwrap();
        let mut request = CreateContainer::new(id.clone(), reader(spec));
        request.storages = plan.resolve(&[DiskPlug { id: disk.clone(), location }]).unwrap();
        agent.create_container(&request, deadline()).await.unwrap();
        agent.start_container(&id, deadline()).await.unwrap();
        let init = ProcessRef::init(&id);
        let mut bytes = Vec::new();
        loop {
            match agent.read_stdout(&init, 1 << 16).await.unwrap() {
                some if some.is_empty() => break,
                some => bytes.extend(some),
            }
        }
        assert_eq!(agent.wait(&init).await.unwrap(), ExitStatus(0));
        agent.remove_container(&id, deadline()).await.unwrap();
        self.machine.unplug(&disk, deadline()).await.unwrap();
        bytes
    }

    async fn end(self) {
        self.machine.stop(deadline()).await.unwrap();
        self.leftovers.assert_none();
    }
}

/// A container that sees the guest's devices, which are the machine's own.
fn reader(mut spec: Spec) -> Spec {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    let options = vec!["bind".to_owned(), "ro".to_owned()];
    let mount = MountBuilder::default().destination("/guest").typ("bind").source("/dev").options(options);
    mounts.push(mount.build().unwrap());
    spec.set_mounts(Some(mounts));
    let rule = LinuxDeviceCgroupBuilder::default().allow(true).access("r").build().unwrap();
    let resources = LinuxResourcesBuilder::default().devices(vec![rule]).build().unwrap();
    let mut linux = spec.linux().clone().unwrap_or_default();
    linux.set_resources(Some(resources));
    spec.set_linux(Some(linux));
    spec
}

fn spec(id: &str, function: &PciFunction) -> VfioPciSpec {
    let handle = VfioHandle::Group(function.group_number());
    let address = function.address().parse().unwrap();
    VfioPciSpec { id: id.parse().unwrap(), function: VfioFunction::Pci(address), handle }
}

fn read(disk: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(disk).unwrap().take(COMPARED.try_into().unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn smoke_an_nvme_goes_to_a_container_and_back_to_its_host() {
    let Some(function) = PciFunction::nvme_alone() else { return };
    let Some(image) = GuestImage::find() else { return };
    let before = read(&function.disk());
    assert_eq!(before.len(), COMPARED);
    let bench = Bench::new(&image).await;

    let lent = function.lend();
    assert!(!function.has_disk(), "the host has the disk no more");
    let spec = spec("nvme", &function);
    bench.machine.plug(&spec.clone().into(), deadline()).await.unwrap();
    assert!(bench.read_in_a_container().await == before, "the container reads the bytes of the host's disk");
    bench.machine.unplug(&spec.id, deadline()).await.unwrap();

    drop(lent);
    assert!(read(&function.disk()) == before, "the host has its disk again");
    bench.end().await;
}

#[tokio::test]
async fn a_group_of_two_functions_is_passed_whole_or_not_at_all() {
    let Some(function) = PciFunction::nvme_in_company() else { return };
    let Some(image) = GuestImage::find() else { return };
    let before = read(&function.disk());
    let other = function.group().into_iter().find(|member| *member != function).unwrap();
    let bench = Bench::new(&image).await;

    let lent = function.lend();
    let lent_other = other.lend();
    let specs = [spec("nvme", &function), spec("card", &other)];
    for spec in &specs {
        bench.machine.plug(&spec.clone().into(), deadline()).await.unwrap();
    }
    assert!(bench.read_in_a_container().await == before, "the container reads the bytes of the host's disk");
    for spec in specs.iter().rev() {
        bench.machine.unplug(&spec.id, deadline()).await.unwrap();
    }
    drop((lent, lent_other));
    assert!(read(&function.disk()) == before, "the host has its disk again");
    bench.end().await;
}

#[tokio::test]
async fn a_device_that_its_driver_still_has_is_refused_and_leaves_nothing() {
    let Some(function) = PciFunction::nvme_alone() else { return };
    let Some(image) = GuestImage::find() else { return };
    let bench = Bench::new(&image).await;
    let spec = spec("nvme", &function);
    for _ in 0..5 {
        // More often than there are ports.
        let error = bench.machine.plug(&spec.clone().into(), deadline()).await.unwrap_err();
        assert!(matches!(error, PlugError::Refused { .. }), "{error:?}");
    }
    function.disk();
    bench.end().await;
}
