//! What stays on the host, and the order of the rest.

use vc_device::{
    Access, ContainerNode, DeviceRequest, DeviceSource, Dropped, NodeKind, Requested, VfioPath, VfioWanted,
    control_first, without_removable_media,
};
use vc_types::{DeviceNumber, GuestPath, HostPath};

const CDROM_MAJORS: [u32; 14] = [11, 15, 16, 17, 18, 20, 23, 24, 25, 26, 27, 28, 29, 32];

fn device(kind: NodeKind, major: u32) -> Requested {
    let number = DeviceNumber::new(major, 0).unwrap();
    let path = HostPath::new("/dev/x").unwrap();
    let source = match kind {
        NodeKind::Block => DeviceSource::Block { number, path },
        NodeKind::Character | NodeKind::Fifo => DeviceSource::Character { number, path },
    };
    Requested::Device(DeviceRequest { source, access: Access::ReadWrite, node: None })
}

fn vfio(path: VfioPath, name: &str) -> Requested {
    let node = ContainerNode { path: GuestPath::new(name).unwrap(), mode: None, uid: None, gid: None };
    Requested::Vfio(VfioWanted { path, node })
}

#[test]
fn cdrom_and_floppy_drives_stay_on_the_host() {
    for major in CDROM_MAJORS {
        let filtered = without_removable_media(vec![device(NodeKind::Block, major)]);
        assert!(filtered.kept.is_empty(), "{major}");
        assert_eq!(filtered.dropped[0].1, Dropped::Cdrom);
    }
    let filtered = without_removable_media(vec![device(NodeKind::Block, 2)]);
    assert_eq!(filtered.dropped[0].1, Dropped::Floppy);
    for major in [1, 3, 7, 8, 12, 14, 19, 21, 22, 30, 31, 33, 253, 259] {
        assert_eq!(without_removable_media(vec![device(NodeKind::Block, major)]).kept.len(), 1, "{major}");
    }
}

#[test]
fn l17_character_devices_with_the_majors_of_drives_are_kept() {
    // 2: BSD ptys, 11: raw keyboard, 15: joysticks, 29: framebuffers …
    for major in CDROM_MAJORS.into_iter().chain([2]) {
        let filtered = without_removable_media(vec![device(NodeKind::Character, major)]);
        assert_eq!(filtered.kept, [device(NodeKind::Character, major)]);
        assert!(filtered.dropped.is_empty());
    }
}

#[test]
fn l21_the_control_device_comes_first_and_everything_else_keeps_its_order() {
    let [one, two] = [vfio(VfioPath::Control, "/dev/one"), vfio(VfioPath::Control, "/dev/two")];
    let (group, disk) = (vfio(VfioPath::Group(2), "/dev/g"), device(NodeKind::Block, 8));
    let cdev = vfio(VfioPath::Cdev(1), "/dev/c");
    let mut devices = [group.clone(), disk.clone(), one.clone(), cdev.clone(), two.clone()];
    control_first(&mut devices);
    assert_eq!(devices, [one, two, group, disk, cdev]);
}
