//! IOMMU groups as sysfs shows them.

use vc_device::{ApQueue, GroupMember, PciClass, SysfsError, VfioFunction};

use crate::tree::Tree;

#[test]
fn a_group_has_all_its_members() {
    let sysfs = Tree::unpack("gpu.txt");
    let group = sysfs.sysfs().iommu_group(12).unwrap().unwrap();
    let members: Vec<_> = group.members.iter().map(|member| member.function().to_string()).collect();
    assert_eq!(members, ["0000:3a:00.0", "0000:3b:00.0", "0000:3b:00.1"]);
    let gpu = group.members[1].pci().unwrap();
    assert_eq!((gpu.vendor, gpu.device, gpu.class), (0x10de, 0x2684, PciClass(0x03_0000)));
    assert_eq!(
        (gpu.driver.as_deref(), gpu.iommu_group, gpu.vfio_cdev),
        (Some("vfio-pci"), Some(12), Some(3))
    );
    assert!(gpu.is_express && gpu.is_bound_to_vfio() && gpu.physical_function.is_none());
    assert_eq!(sysfs.sysfs().vfio_cdev(4).unwrap().unwrap().0, 12);
    assert_eq!(sysfs.sysfs().iommu_group(13).unwrap(), None);
    assert_eq!(sysfs.sysfs().vfio_cdev(9).unwrap(), None);
}

#[test]
fn a_virtual_function_knows_its_physical_one_and_is_express() {
    let tree = Tree::unpack("sriov.txt");
    let function = tree.sysfs().pci_function("0000:3b:00.2".parse().unwrap()).unwrap().unwrap();
    assert_eq!(function.physical_function, Some("0000:3b:00.0".parse().unwrap()));
    assert!(function.is_express, "although sysfs may show 256 bytes of its configuration");
    assert!(function.is_bound_to_vfio(), "a vendor's variant of vfio-pci");
    let physical = tree.sysfs().pci_function("0000:3b:00.0".parse().unwrap()).unwrap().unwrap();
    assert!(!physical.is_bound_to_vfio());
}

#[test]
fn ap_queues_and_mediated_devices_are_members_of_groups() {
    let ap = Tree::unpack("ap.txt").sysfs().iommu_group(0).unwrap().unwrap();
    let [GroupMember::Ap { queues, .. }] = &ap.members[..] else { panic!("{ap:?}") };
    assert_eq!(queues, &[ApQueue::new(5, 0x1f), ApQueue::new(6, 0xab)]);
    let tree = Tree::unpack("mdev.txt");
    let mdev = tree.sysfs().iommu_group(40).unwrap().unwrap();
    let id = "f79944e4-5a3d-11e8-99ce-479cbab002e4".parse().unwrap();
    assert_eq!(mdev.members, [GroupMember::Mdev(id)]);
    assert_eq!(tree.sysfs().vfio_cdev(7).unwrap(), Some((40, VfioFunction::Mdev(id))));
}

#[test]
fn a_group_that_is_known_only_in_part_is_an_error() {
    for line in [
        "/sys/kernel/iommu_groups/12/devices/platform:gpu -> ../../../../devices/x",
        "/sys/kernel/iommu_groups/12/devices/0000:99:00.0 -> ../../../../devices/gone",
        r"/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/class = garbage\n",
        r"/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/vendor = 0x10de10de\n",
    ] {
        let tree = Tree::unpack("gpu.txt");
        tree.make(line);
        let refused = tree.sysfs().iommu_group(12);
        assert!(matches!(refused, Err(SysfsError::Malformed { .. })), "{line}: {refused:?}");
    }
    let ap = Tree::unpack("ap.txt");
    ap.make(r"/sys/devices/vfio_ap/matrix/29c177bb-8b23-4a4c-9b3e-3f8a0c1d2e3f/matrix = 05.1f\n");
    assert!(ap.sysfs().iommu_group(0).is_err());
}

#[test]
fn a_kernel_without_device_nodes_has_no_cdevs() {
    let tree = Tree::unpack("gpu.txt");
    tree.remove("/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/vfio-dev/vfio3/dev");
    let gpu = tree.sysfs().pci_function("0000:3b:00.0".parse().unwrap()).unwrap().unwrap();
    assert_eq!(gpu.vfio_cdev, None);
    assert_eq!(tree.sysfs().vfio_cdev(3).unwrap(), None);
}
