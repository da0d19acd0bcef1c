//! Every kind of device with a real machine: plugged, used by a container in the guest, and unplugged
//! where QEMU allows it.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

#[path = "vm_devices/guest.rs"]
mod guest;
#[path = "vm_devices/server.rs"]
mod server;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use guest::{Guest, deadline, id};
use server::Server;
use vc_agent::{Storage, StorageDriver, Streams, Volumes};
use vc_device::{
    Access, BlockBackend, BlockSpec, DeviceSpec, GuestLocation, PartitionImage, PartitionedSpec,
    PmemFrontend, PmemSpec, QueueSize, SerialPortBackend, SerialPortSpec, VfioFunction, VfioHandle,
    VfioPciSpec, VhostUserBlkSpec, VhostUserFsSpec,
};
use vc_hypervisor::{Hotplug, Machine, PlugError, UnplugError};
use vc_tests::shell;
use vc_types::{Deadline, HostPath, MiB};

fn open(path: &Path) -> (Arc<File>, HostPath) {
    (Arc::new(File::open(path).unwrap()), HostPath::new(path).unwrap())
}

fn disk(name: &str, image: &Path) -> BlockSpec {
    let (file, path) = open(image);
    BlockSpec::new(id(name), file, path, Access::ReadOnly)
}

fn partition_image(path: &Path) -> PartitionImage {
    let (file, name) = open(path);
    PartitionImage { size: file.metadata().unwrap().len(), file, name }
}

#[tokio::test]
async fn disks_on_ports_are_read_and_unplugged() {
    let Some(guest) = Guest::start(|spec| spec.hotplug_ports = 8).await else { return };
    let image = guest.image("on-port");
    let location = guest.plug(&disk("d0", &image).into()).await;
    assert!(matches!(location, GuestLocation::Pci(_)), "{location}");
    guest.assert_reads("on-port", guest.layer(&location, "d0", &[])).await;
    guest.unplug("d0").await;
    // The same image by another name: what an unplugged disk had is free again.
    assert_eq!(guest.plug(&disk("d1", &image).into()).await, location);
    guest.unplug("d1").await;

    let images = ["first", "second", "third"].map(|name| partition_image(&guest.image(name)));
    let spec = PartitionedSpec::new(id("parts"), images.into(), None).unwrap();
    let location = guest.plug(&spec.into()).await;
    for (number, content) in [("1", "first"), ("3", "third"), ("2", "second")] {
        let marker = format!("X-kata.partition-number={number}");
        let layer = guest.layer(&location, content, &["X-kata.gpt-partitioned=true", &marker]);
        guest.assert_reads(content, layer).await;
    }
    guest.unplug("parts").await;
    guest.end().await;
}

#[tokio::test]
async fn r6_disks_on_a_bridge_are_read_and_unplugged() {
    let bridge = |spec: &mut vc_hypervisor::MachineSpec| {
        spec.hotplug_ports = 0;
        spec.pci_bridges = 1;
    };
    let Some(guest) = Guest::start(bridge).await else { return };
    let image = guest.image("on-bridge");
    for round in 0..3 {
        let location = guest.plug(&disk("d0", &image).into()).await;
        assert_eq!(location.to_string(), "18/02", "round {round}: the base has the first slot");
        guest.assert_reads("on-bridge", guest.layer(&location, "d0", &[])).await;
        guest.unplug("d0").await;
    }
    guest.end().await;
}

#[tokio::test]
async fn disks_without_a_port_are_units_of_the_scsi_controller() {
    let Some(guest) = Guest::start(|spec| spec.hotplug_ports = 0).await else { return };
    for round in 0..2 {
        let names = ["unit1", "unit2", "unit3"];
        let mut layers = Vec::new();
        for (name, unit) in names.into_iter().zip(1..) {
            let content = format!("{name}-{round}");
            let location = guest.plug(&disk(name, &guest.image(&content)).into()).await;
            assert_eq!(location.to_string(), format!("0:{unit}"), "round {round}: the base is unit 0");
            layers.push((guest.layer(&location, name, &[]), content));
        }
        for (layer, content) in layers {
            guest.assert_reads(&content, layer).await;
        }
        for name in names {
            guest.unplug(name).await;
        }
    }
    guest.end().await;
}

#[tokio::test]
async fn a_host_block_device_is_read_and_let_go() {
    if !vc_tests::root() {
        return;
    }
    let Some(guest) = Guest::start(|_| {}).await else { return };
    let Some(device) = server::LoopDevice::attach(&guest.image("host-device")) else { return };
    let spec = BlockSpec { backend: BlockBackend::HostDevice, ..disk("host", &device.path) };
    let location = guest.plug(&spec.into()).await;
    guest.assert_reads("host-device", guest.layer(&location, "host", &[])).await;
    guest.unplug("host").await;
    guest.end().await;
}

#[tokio::test]
async fn r7_what_other_processes_serve_is_used_and_unplugged() {
    let Some(guest) = Guest::start(|_| {}).await else { return };
    let image = guest.image("served");
    let Some(server) = Server::vhost_user_blk(&guest.path("blk.sock"), &image) else { return };
    let (socket, queue_size) = (server.socket(), QueueSize::default());
    let location = guest.plug(&VhostUserBlkSpec { id: id("served"), socket, queue_size }.into()).await;
    guest.assert_reads("served", guest.layer(&location, "served", &[])).await;
    guest.unplug("served").await;

    let shared = guest.directory("shared");
    std::fs::write(shared.join("seen"), "shared\n").unwrap();
    let Some(server) = Server::virtiofsd(&guest.path("fs.sock"), &shared) else { return };
    let spec =
        VhostUserFsSpec { id: id("share"), socket: server.socket(), tag: "tag".parse().unwrap(), queue_size };
    guest.plug(&spec.into()).await;
    let layer = Storage::new(StorageDriver::VirtioFs, "tag", "virtiofs", guest.mount_point("share"));
    let reader = guest.begin("shared", vec![layer], shell("read line; cat /seen")).await;
    // What the host has removed is noticed; what is there stays in use.
    guest.agent().remove_stale_shares(deadline()).await.unwrap();
    guest.agent().write_stdin(&reader, b"\n").await.unwrap();
    assert_eq!(guest.finish(&reader).await, "shared\n");
    guest.unplug("share").await;
    guest.end().await;
}

#[tokio::test]
async fn persistent_memory_is_read_and_stays() {
    let Some(guest) = Guest::start(|spec| spec.pmem_room = MiB::new(64)).await else { return };
    for (name, frontend) in [("nvdimm", PmemFrontend::Nvdimm), ("virtio-pmem", PmemFrontend::VirtioPmem)] {
        let image = guest.image(name);
        File::options().write(true).open(&image).unwrap().set_len(2 << 20).unwrap();
        let spec = PmemSpec::new(id(name), open(&image), 2 << 20, Access::ReadOnly, frontend).unwrap();
        let location = match guest.machine.plug(&spec.into(), deadline()).await {
            Ok(location) => location,
            // QEMU 7.2 has no read-only virtio-pmem.
            Err(PlugError::Refused { .. }) if name == "virtio-pmem" => {
                vc_tests::skip("this QEMU refuses read-only virtio-pmem");
                continue;
            }
            Err(error) => panic!("{name}: {error:?}"),
        };
        assert!(matches!(location, GuestLocation::Memory(_)), "{location}");
        let layer = Storage {
            options: vec!["ro".into()],
            ..Storage::new(StorageDriver::Nvdimm, location.to_string(), "erofs", guest.mount_point(name))
        };
        guest.assert_reads(name, layer).await;
        let refused = guest.machine.unplug(&id(name), deadline()).await;
        assert!(matches!(refused, Err(UnplugError::Refused { .. })), "{name}: {refused:?}");
        let twice = guest.machine.unplug(&id(name), deadline()).await;
        assert!(matches!(twice, Err(UnplugError::Refused { .. })), "{name} is still there: {twice:?}");
    }
    guest.end().await;
}

#[tokio::test]
async fn r7_an_interface_on_a_tap_comes_up_and_goes() {
    if !vc_tests::root() {
        return;
    }
    let Some(tap) = server::Tap::open() else { return };
    let Some(guest) = Guest::start(|_| {}).await else { return };
    let queue = vc_device::TapQueue { tap: tap.file(), vhost: None };
    let address = server::Tap::address();
    let mac = address.parse().unwrap();
    let backend = vc_device::NetworkBackend::Tap(vec![queue]);
    let spec = vc_device::NetworkSpec::new(id("eth"), mac, None, backend).unwrap();
    let location = guest.plug(&spec.into()).await;
    let GuestLocation::Pci(pci) = location else { panic!("{location}") };
    guest.set_up("eth7", mac, pci).await;
    // Its carrier tells that somebody is at the other end.
    let look = "cat /sys/class/net/eth7/address /sys/class/net/eth7/carrier";
    assert_eq!(guest.run("net", Vec::new(), look).await, format!("{address}\n1\n"));
    guest.unplug("eth").await;
    let left = format!("grep -l {address} /sys/class/net/*/address");
    assert_eq!(guest.run("gone", Vec::new(), &left).await, "", "the guest has let go");
    guest.end().await;
}

/// Character devices, as far as QEMU passes them on: bytes of a socket, and of a terminal of the host.
#[tokio::test]
async fn serial_ports_pass_bytes_both_ways_and_are_unplugged() {
    let Some(guest) = Guest::start(|_| {}).await else { return };
    let terminal = nix::pty::openpty(None, None).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let port = |name: &str, backend| SerialPortSpec { id: id(name), name: name.parse().unwrap(), backend };
    let file = |fd: OwnedFd| Arc::new(File::from(fd));
    for (name, host, backend) in [
        ("socket", File::from(OwnedFd::from(ours)), SerialPortBackend::Socket(file(theirs.into()))),
        ("device", File::from(terminal.master), SerialPortBackend::Device(file(terminal.slave))),
    ] {
        let location = guest.plug(&port(name, backend).into()).await;
        assert!(matches!(location, GuestLocation::Pci(_)), "{location}");
        let numbers = guest.serial_port(name).await;
        let echo = "read line < /dev/port; echo \"guest got $line\" > /dev/port; echo \"$line\"";
        let talk = tokio::task::spawn_blocking(move || {
            (&host).write_all(b"hello\n").unwrap();
            let mut line = String::new();
            BufReader::new(&host).read_line(&mut line).unwrap();
            line
        });
        assert_eq!(guest.run_with_device(name, numbers, echo).await, "hello\n");
        let answer = tokio::time::timeout(deadline().remaining(), talk).await.unwrap().unwrap();
        assert_eq!(answer, "guest got hello\n");
        guest.unplug(name).await;
        let left = guest.run("gone", Vec::new(), "ls /sys/class/virtio-ports").await;
        assert_eq!(left, "", "the guest has let go");
    }
    guest.end().await;
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_and_leaves_its_place_free() {
    let Some(guest) = Guest::start(|spec| spec.hotplug_ports = 4).await else { return };
    let function = VfioFunction::Pci("0000:ff:1f.7".parse().unwrap());
    let group = VfioPciSpec { id: id("vfio"), function, handle: VfioHandle::Group(999_999) };
    let null = || Arc::new(File::open("/dev/null").unwrap());
    let handle = VfioHandle::Cdev { device: null(), iommufd: null() };
    let cdev = VfioPciSpec { id: id("vfio"), function, handle };
    let socket = HostPath::new(guest.path("nobody.sock")).unwrap();
    let served = VhostUserBlkSpec { id: id("vfio"), socket, queue_size: QueueSize::default() };
    let has_iommufd = guest.machine.capabilities(deadline()).await.unwrap().iommufd;
    let specs: [DeviceSpec; 3] = [group.into(), cdev.into(), served.into()];
    for (number, spec) in specs.iter().enumerate() {
        let refused = guest.machine.plug(spec, deadline()).await;
        let by_capability = number == 1 && !has_iommufd;
        match refused {
            Err(PlugError::Unsupported { .. }) => assert!(by_capability, "{number}"),
            Err(PlugError::Refused { .. }) => assert!(!by_capability, "{number}"),
            other => panic!("{number}: {other:?}"),
        }
        // Nothing is left: the name, the port, and whatever stood behind.
        let location = guest.plug(&disk("vfio", &guest.image(&format!("free{number}"))).into()).await;
        assert_eq!(location.to_string(), "08.1/00", "{number}: the base has the first port");
        guest.unplug("vfio").await;
    }
    guest.end().await;
}

#[tokio::test]
async fn l27_an_unplug_that_fails_keeps_the_place_and_may_be_tried_again() {
    let Some(mut guest) = Guest::launch(|spec| spec.hotplug_ports = 4).await else { return };
    let spec = disk("early", &guest.image("early")).into();
    let location = guest.plug(&spec).await;
    // The guest is still booting: nobody hears the request.
    let early = guest.machine.unplug(&id("early"), Deadline::after(Duration::from_millis(50))).await;
    // Where QEMU is slow to answer itself, not even that is known.
    let held = matches!(early, Err(UnplugError::GuestHoldsOn { .. } | UnplugError::Unknown { .. }));
    assert!(held, "{early:?}");
    let twice = guest.machine.plug(&spec, deadline()).await;
    assert!(matches!(twice, Err(PlugError::Port { .. })), "it still has its place: {twice:?}");
    guest.connect().await;
    guest.machine.pause(deadline()).await.unwrap();
    let paused = guest.machine.unplug(&id("early"), Deadline::after(Duration::from_secs(1))).await;
    // A request from before the guest looked may have been granted meanwhile.
    if !matches!(paused, Ok(())) {
        assert!(matches!(paused, Err(UnplugError::GuestPaused { .. })), "{paused:?}");
        guest.machine.resume(deadline()).await.unwrap();
        guest.unplug("early").await;
    } else {
        guest.machine.resume(deadline()).await.unwrap();
    }
    assert_eq!(guest.plug(&spec).await, location, "its place is free again");
    guest.unplug("early").await;
    guest.end().await;
}

#[tokio::test]
async fn issue11686_the_end_of_qemu_ends_an_unplug_and_is_named() {
    let Some(guest) = Guest::start(|_| {}).await else { return };
    guest.plug(&disk("d0", &guest.image("d0")).into()).await;
    guest.machine.pause(deadline()).await.unwrap();
    let device = id("d0");
    let unplug = guest.machine.unplug(&device, deadline());
    let (unplugged, stopped) = tokio::join!(unplug, guest.machine.stop(deadline()));
    stopped.unwrap();
    assert!(matches!(unplugged, Err(UnplugError::MachineGone { .. })), "{unplugged:?}");
    guest.leftovers.assert_none();
}
