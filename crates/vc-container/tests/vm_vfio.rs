//! Devices of the host that a machine gets for itself, by VFIO. The host is real or nested; the devices are those that
//! `VC_TEST_VFIO` names, and they are only read.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::{LinuxDeviceCgroupBuilder, LinuxResourcesBuilder, MountBuilder, Spec};
use vc_agent::{
    Client, Connect, Connector, Containers, CreateContainer, CreateSandbox, ExitStatus, Guest, ProcessRef,
};
use vc_agent::{Processes, Streams};
use vc_container::{ContainerStorage, GuestFeatures, guest_spec};
use vc_device::{
    Access, BlockSpec, Capacity, CdiKind, CdiKinds, ContainerNode, ContainerRole, Moment, PlannedFunction,
    Port, PortKind, Sibling, Sysfs, Topology, VfioFunction, VfioHandle, VfioMode, VfioPath, VfioPciSpec,
    VfioPlan, VfioPlanError, VfioPolicy, VfioWanted, annotations, plan_vfio,
};
use vc_hypervisor::{Hotplug, Hypervisor, Machine, MachineSpec, PlugError};
use vc_qemu::{Qemu, QemuMachine};
use vc_storage::{DiskPlug, Layer};
use vc_tests::vfio::PciFunction;
use vc_tests::{GuestImage, Layers, Leftovers, shell};
use vc_types::{ContainerId, Deadline, DeviceId, GuestPath, HostPath};

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(120))
}

/// How much of a disk is compared.
const COMPARED: usize = 1 << 20;

/// The first disk that the guest finds, read in the container through the guest's devices.
const READ: &str = "until [ -b /guest/nvme0n1 ]; do :; done; head -c 1048576 /guest/nvme0n1";

/// Devices are plugged into a machine that runs, and the container gets their nodes.
const HOT: VfioPolicy = VfioPolicy { cold_plug: None, hot_plug: Some(Port::RootPort), mode: VfioMode::Vfio };

/// Devices are in the machine from its launch.
const COLD: VfioPolicy = VfioPolicy { cold_plug: Some(Port::RootPort), hot_plug: None, ..HOT };

/// Where the kernel offers IOMMUFD.
const IOMMUFD: &str = "/dev/iommu";

struct Bench {
    layer: Layer,
    leftovers: Leftovers,
    machine: QemuMachine,
    _layers: Layers,
}

impl Bench {
    async fn new(image: &GuestImage) -> Self {
        Self::launch(image, |_| {}).await
    }

    /// One whose guest is up, as it is when a container is created. While it boots, it does not always survive a device
    /// that is passed (see `vc_qemu`).
    async fn booted(image: &GuestImage) -> Self {
        let bench = Self::new(image).await;
        bench.connect().await;
        bench
    }

    async fn launch(image: &GuestImage, change: impl FnOnce(&mut MachineSpec)) -> Self {
        let (layers, leftovers) = (Layers::new(), Leftovers::new());
        let layer = Layer::open(layers.busybox()).unwrap();
        let path = |path: &Path| HostPath::new(path).unwrap();
        let dir = path(leftovers.runtime_dir());
        let mut spec =
            MachineSpec::new("box".parse().unwrap(), path(&image.kernel), path(&image.initrd), dir);
        spec.hotplug_ports = 4;
        spec.accelerator = vc_tests::host::accelerator().parse().unwrap();
        change(&mut spec);
        let machine = Qemu::default().launch(&spec, deadline()).await.unwrap();
        Self { layer, leftovers, machine, _layers: layers }
    }

    /// Waits until the guest is there.
    async fn connect(&self) -> Client {
        Connector::default().connect(self.machine.agent_address(), deadline()).await.unwrap()
    }

    async fn plug(&self, specs: &[VfioPciSpec]) {
        for spec in specs {
            self.machine.plug(&spec.clone().into(), deadline()).await.unwrap();
        }
    }

    async fn unplug(&self, specs: &[VfioPciSpec]) {
        for spec in specs.iter().rev() {
            self.machine.unplug(&spec.id, deadline()).await.unwrap();
        }
    }

    /// A container reads what was on the disk `before`, and so does the host once it has all of `lent` again.
    async fn read_and_give_back<Lent>(
        &self,
        specs: &[VfioPciSpec],
        lent: Lent,
        (function, before): (&PciFunction, &[u8]),
    ) {
        assert!(
            self.read_in_a_container().await == before,
            "the container reads the bytes of the host's disk"
        );
        self.unplug(specs).await;
        drop(lent);
        assert!(read(&function.disk()) == before, "the host has its disk again");
    }

    /// The first bytes of the guest's NVMe disk, as a container reads them.
    async fn read_in_a_container(&self) -> Vec<u8> {
        self.run(READ).await
    }

    /// What a container writes that sees the guest's devices.
    async fn run(&self, script: &str) -> Vec<u8> {
        let agent = self.connect().await;
        agent.create_sandbox(&CreateSandbox::new("sandbox".parse().unwrap()), deadline()).await.unwrap();
        let id: ContainerId = "reader".parse().unwrap();
        let plan = ContainerStorage::of_layers(id.clone(), [self.layer.name()], &shell(script)).unwrap().plan;
        let disk: DeviceId = "layer0".parse().unwrap();
        let (image, name) = (self.layer.image().clone(), self.layer.name().clone());
        let block = BlockSpec::new(disk.clone(), image, name, Access::ReadOnly);
        let location = self.machine.plug(&block.into(), deadline()).await.unwrap();
        let spec = guest_spec(shell(script), &plan.rootfs, GuestFeatures::default()).unwrap();
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

/// A plan for containers that have these nodes among their devices, behind the one by which groups are opened.
fn plan(nodes: &[VfioPath], policy: VfioPolicy, moment: Moment) -> VfioPlan {
    try_plan(nodes, policy, moment).unwrap()
}

fn try_plan(nodes: &[VfioPath], policy: VfioPolicy, moment: Moment) -> Result<VfioPlan, VfioPlanError> {
    let wanted = |path: VfioPath| {
        let path_in_container = GuestPath::new(path.to_string()).unwrap();
        VfioWanted { path, node: ContainerNode { path: path_in_container, mode: None, uid: None, gid: None } }
    };
    let nodes: Vec<_> = nodes.iter().copied().chain([VfioPath::Control]).map(wanted).collect();
    let for_workload = (moment, ContainerRole::Workload);
    plan_vfio(&nodes, &Sysfs::new("/sys"), &BTreeSet::new(), policy, for_workload)
}

/// The devices of a container that has this node.
fn behind(node: VfioPath, policy: VfioPolicy, moment: Moment) -> Vec<VfioPciSpec> {
    let plan = plan(&[node], policy, moment);
    let given: Vec<_> = plan.nodes.iter().map(|wanted| wanted.path).collect();
    assert_eq!(given, [VfioPath::Control, node], "the control device comes first");
    (0..).zip(&plan.functions).map(|(number, planned)| passed(number, planned)).collect()
}

fn passed(number: u32, planned: &PlannedFunction) -> VfioPciSpec {
    let open = |path: &str| Arc::new(File::options().read(true).write(true).open(path).unwrap());
    let handle = match planned.via {
        VfioPath::Group(group) => VfioHandle::Group(group),
        device => VfioHandle::Cdev { device: open(&device.to_string()), iommufd: open(IOMMUFD) },
    };
    VfioPciSpec { id: format!("vfio{number}").parse().unwrap(), function: planned.member.function(), handle }
}

/// The group of a function, plugged into a machine that runs.
fn hot(function: &PciFunction) -> Vec<VfioPciSpec> {
    behind(VfioPath::Group(function.group_number()), HOT, Moment::Running)
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
    let bench = Bench::booted(&image).await;

    let lent = function.lend();
    assert!(!function.has_disk(), "the host has the disk no more");
    let specs = hot(&function);
    assert_eq!(specs.len(), 1);
    bench.plug(&specs).await;
    bench.read_and_give_back(&specs, lent, (&function, &before)).await;
    bench.end().await;
}

#[tokio::test]
async fn an_nvme_is_in_the_machine_from_its_start_and_can_be_taken_out() {
    let Some(function) = PciFunction::nvme_alone() else { return };
    let Some(image) = GuestImage::find() else { return };
    let before = read(&function.disk());
    let lent = function.lend();
    let bench = Bench::launch(&image, |spec| spec.starts_paused = true).await;
    let specs = behind(VfioPath::Group(function.group_number()), COLD, Moment::Launch);
    bench.plug(&specs).await;
    bench.machine.resume(deadline()).await.unwrap();
    bench.read_and_give_back(&specs, lent, (&function, &before)).await;
    bench.end().await;
}

#[tokio::test]
async fn a_group_of_two_functions_is_passed_whole_or_not_at_all() {
    let Some(function) = PciFunction::nvme_in_company() else { return };
    let Some(image) = GuestImage::find() else { return };
    let before = read(&function.disk());
    let other = function.group().into_iter().find(|member| *member != function).unwrap();
    let bench = Bench::booted(&image).await;

    let lent = function.lend();
    let group = VfioPath::Group(function.group_number());
    let half = try_plan(&[group], HOT, Moment::Running);
    assert!(matches!(half, Err(VfioPlanError::MemberNotBound { .. })), "{half:?}");
    let lent_other = other.lend();
    let specs = behind(group, HOT, Moment::Running);
    assert_eq!(specs.len(), 2);
    bench.plug(&specs).await;
    bench.read_and_give_back(&specs, (lent, lent_other), (&function, &before)).await;
    bench.end().await;
}

#[tokio::test]
async fn an_nvme_is_passed_by_its_own_node_and_an_iommufd() {
    let Some(function) = PciFunction::nvme_alone() else { return };
    let (true, Some(image)) = (vc_tests::host::iommufd(), GuestImage::find()) else { return };
    let before = read(&function.disk());
    let bench = Bench::booted(&image).await;
    if !bench.machine.capabilities(deadline()).await.unwrap().iommufd {
        return vc_tests::skip("this QEMU has no IOMMUFD");
    }
    let lent = function.lend();
    let Some(node) = function.vfio_node() else { return };
    let specs = behind(VfioPath::Cdev(node), HOT, Moment::Running);
    bench.plug(&specs).await;
    bench.read_and_give_back(&specs, lent, (&function, &before)).await;
    bench.end().await;
}

#[tokio::test]
async fn a_device_that_its_driver_still_has_is_refused_and_leaves_nothing() {
    let Some(function) = PciFunction::nvme_alone() else { return };
    let Some(image) = GuestImage::find() else { return };
    let bench = Bench::new(&image).await;
    let spec = VfioPciSpec {
        id: "nvme".parse().unwrap(),
        function: VfioFunction::Pci(function.address().parse().unwrap()),
        handle: VfioHandle::Group(function.group_number()),
    };
    for _ in 0..5 {
        // More often than there are ports.
        let error = bench.machine.plug(&spec.clone().into(), deadline()).await.unwrap_err();
        assert!(matches!(error, PlugError::Refused { .. }), "{error:?}");
    }
    function.disk();
    bench.end().await;
}

/// The guest's displays by address: the bytes of each one's first window.
const DISPLAYS: &str = "cd /sys/bus/pci/devices; for device in *; do case $(cat $device/class) in 0x03*) \
                        read first last flags < $device/resource; echo $((last - first + 1));; esac; done";

#[tokio::test]
async fn annotations_number_devices_as_the_guest_does() {
    let Some([first, second]) = PciFunction::two_displays() else { return };
    let Some(image) = GuestImage::find() else { return };
    let windows = [&second, &first].map(PciFunction::first_window);
    assert_ne!(windows[0], windows[1], "they can be told from each other");
    let lent = [first.lend(), second.lend()];
    let bench = Bench::launch(&image, |spec| spec.starts_paused = true).await;

    // In the other order than the host has them.
    let nodes = [&second, &first].map(|function| VfioPath::Group(function.group_number()));
    let plan = plan(&nodes, VfioPolicy { mode: VfioMode::GuestKernel, ..COLD }, Moment::Launch);
    let specs: Vec<_> = (0..).zip(&plan.functions).map(|(number, planned)| passed(number, planned)).collect();
    bench.plug(&specs).await;
    let mut topology = Topology::new(Capacity { root_ports: 4, ..Capacity::default() }).unwrap();
    let siblings = plan.functions.iter().zip(&specs).map(|(planned, spec)| Sibling {
        function: planned.member.pci().unwrap().clone(),
        place: topology.take(&spec.id, PortKind::RootPort).unwrap(),
    });
    let siblings: Vec<_> = siblings.collect();
    let vendor = siblings[0].function.vendor;
    let kinds = CdiKinds(vec![CdiKind { vendor, class_prefix: "03".into(), name: "example.com/gpu".into() }]);
    let of_guest = (VfioMode::GuestKernel, ContainerRole::Workload);
    let numbers = annotations(&plan, &siblings, &kinds, of_guest).unwrap();
    bench.machine.resume(deadline()).await.unwrap();

    let seen = String::from_utf8(bench.run(DISPLAYS).await).unwrap();
    let seen: Vec<u64> = seen.lines().map(|line| line.parse().unwrap()).collect();
    for (node, window) in nodes.iter().zip(windows) {
        let number = &numbers[&format!("cdi.k8s.io/vfio{}", node.number().unwrap())];
        let number: usize = number.strip_prefix("example.com/gpu=").unwrap().parse().unwrap();
        assert_eq!(seen[number], window, "{node}: {numbers:?}");
    }
    bench.unplug(&specs).await;
    drop(lent);
    bench.end().await;
}
