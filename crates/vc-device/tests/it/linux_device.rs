//! Entries of `linux.devices`.

use vc_device::{
    Access, DeviceIdentity, DeviceSource, LinuxDevice, LinuxDeviceError, NodeKind, Requested, Sysfs,
    VfioPath, VhostUserSockets, request_of_linux_device,
};
use vc_types::{DeviceNumber, HostPath};

use crate::tree::Tree;

fn entry(path: &str, kind: &str, major: i64, minor: i64) -> LinuxDevice {
    let kind = kind.parse().unwrap();
    LinuxDevice { path: path.into(), kind, major, minor, mode: Some(0o660), uid: Some(7), gid: Some(8) }
}

fn ask(device: &LinuxDevice, sysfs: &Sysfs) -> Result<Option<Requested>, LinuxDeviceError> {
    request_of_linux_device(device, Access::ReadWrite, sysfs, None)
}

fn source(device: &LinuxDevice, sysfs: &Sysfs) -> DeviceSource {
    match ask(device, sysfs).unwrap().unwrap() {
        Requested::Device(request) => request.source,
        Requested::Vfio(wanted) => panic!("{wanted:?}"),
    }
}

fn host_path(source: &DeviceSource) -> &str {
    match source {
        DeviceSource::Block { path, .. } | DeviceSource::Character { path, .. } => {
            path.as_path().to_str().unwrap()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_device_is_opened_by_the_kernels_own_name() {
    let tree = Tree::unpack("gpu.txt");
    tree.make(r"/sys/dev/block/8:16/uevent = MAJOR=8\nMINOR=16\nDEVNAME=sdb\nDEVTYPE=disk\n");
    tree.make(r"/sys/dev/char/10:200/uevent = MAJOR=10\nMINOR=200\nDEVNAME=net/tun\n");
    let sysfs = tree.sysfs();
    assert_eq!(host_path(&source(&entry("/dev/xvda", "b", 8, 16), &sysfs)), "/dev/sdb");
    assert_eq!(host_path(&source(&entry("/dev/t", "c", 10, 200), &sysfs)), "/dev/net/tun");
    assert_eq!(host_path(&source(&entry("/dev/t", "u", 10, 200), &sysfs)), "/dev/net/tun");
    // What the kernel does not know is where the container wants it. Kind and number belong together.
    assert_eq!(host_path(&source(&entry("/dev/y", "b", 10, 200), &sysfs)), "/dev/y");
    assert_eq!(host_path(&source(&entry("/dev/y", "c", 127, 0), &sysfs)), "/dev/y");
}

#[test]
fn what_was_asked_for_in_the_container_is_kept() {
    let asked = ask(&entry("/dev/xvda", "b", 8, 0), &Sysfs::new("/nowhere")).unwrap().unwrap();
    let Requested::Device(request) = asked else { panic!("a disk") };
    let node = request.node.unwrap();
    assert_eq!(
        (node.path.as_str(), node.mode, node.uid, node.gid),
        ("/dev/xvda", Some(0o660), Some(7), Some(8))
    );
    assert_eq!(request.access, Access::ReadWrite);
}

#[test]
fn vfio_nodes_are_known_by_the_kernels_name_whatever_the_containers_path() {
    let tree = Tree::unpack("gpu.txt");
    tree.make(r"/sys/dev/char/240:0/uevent = MAJOR=240\nMINOR=0\nDEVNAME=vfio/12\n");
    tree.make(r"/sys/dev/char/10:196/uevent = MAJOR=10\nMINOR=196\nDEVNAME=vfio/vfio\n");
    tree.make(r"/sys/dev/char/511:3/uevent = MAJOR=511\nMINOR=3\nDEVNAME=vfio/devices/vfio3\n");
    for (major, minor, path) in
        [(240, 0, VfioPath::Group(12)), (10, 196, VfioPath::Control), (511, 3, VfioPath::Cdev(3))]
    {
        let asked = ask(&entry("/dev/gpu", "c", major, minor), &tree.sysfs()).unwrap().unwrap();
        assert!(matches!(asked, Requested::Vfio(wanted) if wanted.path == path), "{path}");
    }
}

#[test]
fn l26_the_number_is_the_kernels_own() {
    let source = source(&entry("/dev/nvme0n1p300", "b", 259, 300), &Sysfs::new("/nowhere"));
    assert_eq!(source.identity(), DeviceIdentity::Block(DeviceNumber::new(259, 300).unwrap()));
}

#[test]
fn a_fifo_is_no_device_of_the_host() {
    assert_eq!(ask(&entry("/dev/fifo", "p", 0, 0), &Sysfs::new("/nowhere")).unwrap(), None);
}

#[test]
fn what_cannot_be_understood_is_refused() {
    let tree = Tree::unpack("gpu.txt");
    let sysfs = tree.sysfs();
    assert!(matches!(ask(&entry("", "b", 8, 0), &sysfs), Err(LinuxDeviceError::Path(_))));
    assert!(matches!(ask(&entry("dev/x", "b", 8, 0), &sysfs), Err(LinuxDeviceError::Path(_))));
    assert!(matches!(ask(&entry("/dev/../x", "b", 8, 0), &sysfs), Err(LinuxDeviceError::Path(_))));
    for (major, minor) in [(-1, 0), (0, -1), (4096, 0), (0, 1 << 20), (i64::MAX, i64::MIN)] {
        let refused = ask(&entry("/dev/x", "b", major, minor), &sysfs);
        assert!(matches!(refused, Err(LinuxDeviceError::Number { .. })), "{major}:{minor}");
    }
    assert!(matches!("x".parse::<NodeKind>(), Err(LinuxDeviceError::Kind(_))));
    for uevent in ["MAJOR=8", "DEVNAME=", "DEVNAME=../../etc/shadow", "DEVNAME=/etc/shadow", "DEVNAME=a//b"] {
        tree.make(&format!(r"/sys/dev/block/8:16/uevent = {uevent}\n"));
        let refused = ask(&entry("/dev/x", "b", 8, 16), &sysfs);
        assert!(matches!(refused, Err(LinuxDeviceError::Sysfs { .. })), "{uevent}: {refused:?}");
    }
}

#[test]
fn vhost_user_nodes_stand_for_their_servers() {
    let socket = HostPath::new("/run/spdk/vol0").unwrap();
    let sockets = VhostUserSockets::from([("241:0".parse().unwrap(), socket.clone())]);
    let sysfs = Sysfs::new("/nowhere");
    let ask = |kind, major, minor, sockets| {
        request_of_linux_device(&entry("/dev/x", kind, major, minor), Access::ReadWrite, &sysfs, sockets)
    };
    let Ok(Some(Requested::Device(request))) = ask("b", 241, 0, Some(&sockets)) else { panic!("a disk") };
    assert_eq!(request.source, DeviceSource::VhostUserBlk { socket });
    assert!(matches!(ask("b", 241, 1, Some(&sockets)), Err(LinuxDeviceError::NoServer { .. })));
    assert!(matches!(ask("b", 242, 0, Some(&sockets)), Err(LinuxDeviceError::VhostUserScsi { .. })));
    for (kind, sockets) in [("b", None), ("c", Some(&sockets))] {
        let Ok(Some(Requested::Device(request))) = ask(kind, 241, 0, sockets) else { panic!("a device") };
        assert!(!matches!(request.source, DeviceSource::VhostUserBlk { .. }), "{kind}");
    }
}
