//! A machine with an agent and a disk of busybox, and containers that look at a device.

use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroupBuilder, LinuxDeviceType, Spec};
use vc_agent::{
    Client, Connect, Connector, Containers, CreateContainer, CreateSandbox, Guest as _, Interface,
    KernelModule, Network as _, ProcessRef, Processes, Storage, StorageDriver, Streams,
};
use vc_container::{GuestFeatures, guest_spec};
use vc_device::{Access, BlockSpec, DeviceSpec, GuestLocation};
use vc_hypervisor::{Hotplug, Hypervisor, Machine, MachineSpec};
use vc_qemu::{Qemu, QemuMachine};
use vc_tests::{GuestImage, Layers, Leftovers, shell};
use vc_types::{Deadline, DeviceId, GuestPath, HostPath, MacAddress, PciPath};

/// Ample for a busy machine under emulation.
pub(crate) fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(120))
}

pub(crate) fn id(name: &str) -> DeviceId {
    name.parse().unwrap()
}

pub(crate) struct Guest {
    pub(crate) machine: QemuMachine,
    pub(crate) leftovers: Leftovers,
    agent: Option<Client>,
    base: Option<Storage>,
    layers: Layers,
}

impl Guest {
    /// Launches a machine; its guest is still booting.
    pub(crate) async fn launch(change: impl FnOnce(&mut MachineSpec)) -> Option<Self> {
        let image = GuestImage::find()?;
        let leftovers = Leftovers::new();
        let path = |path: &Path| HostPath::new(path).unwrap();
        let dir = path(leftovers.runtime_dir());
        let mut spec =
            MachineSpec::new("devices".parse().unwrap(), path(&image.kernel), path(&image.initrd), dir);
        spec.accelerator = vc_tests::host::accelerator().parse().unwrap();
        change(&mut spec);
        let machine = Qemu::default().launch(&spec, deadline()).await.unwrap();
        Some(Self { machine, leftovers, agent: None, base: None, layers: Layers::new() })
    }

    /// A machine whose agent answers, with a disk of busybox.
    pub(crate) async fn start(change: impl FnOnce(&mut MachineSpec)) -> Option<Self> {
        let mut guest = Self::launch(change).await?;
        guest.connect().await;
        let busybox = guest.layers.busybox();
        let (file, name) = (std::fs::File::open(&busybox).unwrap(), HostPath::new(&busybox).unwrap());
        let base = BlockSpec::new(id("base"), file.into(), name, Access::ReadOnly);
        let location = guest.plug(&base.into()).await;
        guest.base = Some(guest.layer(&location, "base", &[]));
        Some(guest)
    }

    /// Waits for the agent.
    pub(crate) async fn connect(&mut self) {
        let agent = Connector::default().connect(self.machine.agent_address(), deadline()).await.unwrap();
        let mut sandbox = CreateSandbox::new("devices".parse().unwrap());
        // Only serial ports need it, so the agent does not load it by itself.
        sandbox.kernel_modules = vec![KernelModule { name: "virtio_console".into(), parameters: Vec::new() }];
        agent.create_sandbox(&sandbox, deadline()).await.unwrap();
        self.agent = Some(agent);
    }

    pub(crate) async fn plug(&self, spec: &DeviceSpec) -> GuestLocation {
        self.machine.plug(spec, deadline()).await.unwrap()
    }

    pub(crate) async fn unplug(&self, name: &str) {
        self.machine.unplug(&id(name), deadline()).await.unwrap();
    }

    /// Gives the interface at `pci` this name, and switches it on.
    pub(crate) async fn set_up(&self, name: &str, mac: MacAddress, pci: PciPath) {
        let interface = Interface {
            name: name.into(),
            device: name.into(),
            mac: Some(mac),
            addresses: vec!["192.0.2.2/24".parse().unwrap()],
            mtu: 0,
            pci: Some(pci),
            kind: String::new(),
            flags: 0,
        };
        self.agent.as_ref().unwrap().update_interface(&interface, deadline()).await.unwrap();
    }

    /// An image with a file `seen` that has this content.
    pub(crate) fn image(&self, content: &str) -> PathBuf {
        self.layers.layer(content, |root| std::fs::write(root.join("seen"), format!("{content}\n")).unwrap())
    }

    /// A path of the test's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.layers.path().join(name)
    }

    /// An empty directory.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    pub(crate) fn mount_point(&self, name: &str) -> GuestPath {
        GuestPath::new(format!("/run/kata-containers/virtual-volumes/{name}")).unwrap()
    }

    /// The disk at `location` as a layer, mounted by its own name.
    pub(crate) fn layer(&self, location: &GuestLocation, name: &str, options: &[&str]) -> Storage {
        let driver = match location {
            GuestLocation::Scsi { .. } => StorageDriver::Scsi,
            _ => StorageDriver::Block,
        };
        let options = std::iter::once("ro").chain(options.iter().copied()).map(str::to_owned).collect();
        Storage { options, ..Storage::new(driver, location.to_string(), "erofs", self.mount_point(name)) }
    }

    /// Asserts that a container on top of `layer` reads `content` from it.
    pub(crate) async fn assert_reads(&self, content: &str, layer: Storage) {
        assert_eq!(self.run(content, vec![layer], "cat /seen").await, format!("{content}\n"));
    }

    /// Runs a container on top of `layers` and busybox; returns what it writes.
    pub(crate) async fn run(&self, name: &str, layers: Vec<Storage>, script: &str) -> String {
        let process = self.begin(name, layers, shell(script)).await;
        self.finish(&process).await
    }

    /// Runs a container with a character device of the guest, by its numbers, as `/dev/port`.
    pub(crate) async fn run_with_device(&self, name: &str, numbers: (i64, i64), script: &str) -> String {
        let device = LinuxDeviceBuilder::default().path("/dev/port").typ(LinuxDeviceType::C);
        let device = device.major(numbers.0).minor(numbers.1).file_mode(0o600_u32).build().unwrap();
        let mut spec = shell(script);
        add_device(&mut spec, device);
        let process = self.begin(name, Vec::new(), spec).await;
        self.finish(&process).await
    }

    /// Major and minor of the serial port that the guest knows by this name.
    pub(crate) async fn serial_port(&self, name: &str) -> (i64, i64) {
        // The kernel asks the device for the name, and makes the file once it knows it.
        let look = format!(
            "cd /sys/class/virtio-ports; until grep -lx {name} */name 2>/dev/null; do sleep 0.05; done >/dev/null; cat \
             $(dirname $(grep -lx {name} */name))/dev"
        );
        let numbers = self.run(&format!("look-{name}"), Vec::new(), &look).await;
        let (major, minor) = numbers.trim().split_once(':').unwrap();
        (major.parse().unwrap(), minor.parse().unwrap())
    }

    pub(crate) fn agent(&self) -> &Client {
        self.agent.as_ref().unwrap()
    }

    /// Starts a container on top of `layers` and busybox.
    pub(crate) async fn begin(&self, name: &str, layers: Vec<Storage>, spec: Spec) -> ProcessRef {
        let agent = self.agent();
        let id = name.parse().unwrap();
        let rootfs = GuestPath::new(format!("/run/kata-containers/{name}/rootfs")).unwrap();
        let mut storages = layers;
        storages.push(self.base.clone().unwrap());
        storages.push(overlay(name, &storages, &rootfs));
        let spec = guest_spec(spec, &rootfs, GuestFeatures::default()).unwrap();
        let mut request = CreateContainer::new(id, spec);
        request.storages = storages;
        agent.create_container(&request, deadline()).await.unwrap();
        agent.start_container(&request.id, deadline()).await.unwrap();
        ProcessRef::init(&request.id)
    }

    /// Waits for a container's end; returns what it wrote.
    pub(crate) async fn finish(&self, process: &ProcessRef) -> String {
        let agent = self.agent();
        let mut all = Vec::new();
        loop {
            let some = agent.read_stdout(process, 4096).await.unwrap();
            if some.is_empty() {
                break;
            }
            all.extend(some);
        }
        agent.wait(process).await.unwrap();
        agent.remove_container(&process.container, deadline()).await.unwrap();
        String::from_utf8(all).unwrap()
    }

    pub(crate) async fn end(self) {
        self.machine.stop(deadline()).await.unwrap();
        self.leftovers.assert_none();
    }
}

fn overlay(name: &str, lower: &[Storage], rootfs: &GuestPath) -> Storage {
    let lower: Vec<_> = lower.iter().map(|storage| storage.mount_point.to_string()).collect();
    let [upper, work] = ["fs", "work"].map(|part| format!("/run/kata-containers/{name}/{part}"));
    let create = |path: &String| format!("io.katacontainers.volume.overlayfs.create_directory={path}");
    Storage {
        driver_options: vec![create(&upper), create(&work)],
        options: vec![
            format!("lowerdir={}", lower.join(":")),
            format!("upperdir={upper}"),
            format!("workdir={work}"),
        ],
        ..Storage::new(StorageDriver::Overlay, "overlay", "overlay", rootfs.clone())
    }
}

/// The device, and the right to use it.
fn add_device(spec: &mut Spec, device: LinuxDevice) {
    let allow = LinuxDeviceCgroupBuilder::default().allow(true).typ(device.typ()).access("rw");
    let allow = allow.major(device.major()).minor(device.minor()).build().unwrap();
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut resources = linux.resources().clone().unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    rules.push(allow);
    resources.set_devices(Some(rules));
    linux.set_devices(Some(vec![device])).set_resources(Some(resources));
    spec.set_linux(Some(linux));
}
