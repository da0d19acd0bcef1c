//! The same questions, asked of a real kernel's sysfs: a machine with an IOMMU, its devices bound to
//! vfio-pci (`fixtures/capture.sh`).

use vc_device::{
    Access, LinuxDevice, NodeKind, Port, Requested, VfioPath, VfioPlanError, When, request_of_linux_device,
};

use crate::tree::Tree;
use crate::vfio_plan::{HOT, plan};

fn tree() -> Tree {
    Tree::unpack("captured.txt")
}

#[test]
fn an_nvme_and_a_network_card_are_alone_in_their_groups() {
    for (group, bdf, vendor, device, class) in
        [(6, "0000:05:00.0", 0x1b36, 0x0010, 0x01_0802), (7, "0000:04:00.0", 0x8086, 0x10d3, 0x02_0000)]
    {
        let planned = plan(&tree(), &[VfioPath::Group(group)], HOT).unwrap().functions.pop().unwrap();
        let function = planned.member.pci().unwrap();
        let numbers = (function.vendor, function.device, function.class.0);
        assert_eq!((function.bdf.to_string().as_str(), numbers), (bdf, (vendor, device, class)));
        assert_eq!((function.driver.as_deref(), function.iommu_group), (Some("vfio-pci"), Some(group)));
        assert_eq!(planned.when, When::Hot(Port::RootPort));
        assert!(function.is_express);
    }
}

#[test]
fn a_virtual_function_can_be_passed_and_its_physical_one_cannot() {
    let virtual_function = plan(&tree(), &[VfioPath::Group(10)], HOT).unwrap().functions.pop().unwrap();
    let physical = virtual_function.member.pci().unwrap().physical_function;
    assert_eq!(physical, Some("0000:03:00.0".parse().unwrap()));
    // vfio-pci refuses a physical function whose virtual ones are enabled, so it is bound to nothing.
    let refused = plan(&tree(), &[VfioPath::Group(8)], HOT);
    assert!(matches!(refused, Err(VfioPlanError::MemberNotBound { driver: None, .. })), "{refused:?}");
}

#[test]
fn conventional_devices_behind_one_bridge_are_one_group() {
    let functions = plan(&tree(), &[VfioPath::Group(9)], HOT).unwrap().functions;
    let found: Vec<_> = functions.iter().map(|planned| planned.member.function().to_string()).collect();
    assert_eq!(found, ["0000:02:01.0", "0000:02:02.0"]);
    assert!(functions.iter().all(|planned| planned.when == When::Hot(Port::BridgePort)));
}

#[test]
fn what_the_machine_itself_uses_cannot_be_passed() {
    for group in [5, 0] {
        let refused = plan(&tree(), &[VfioPath::Group(group)], HOT);
        assert!(refused.is_err(), "{group}: {refused:?}");
    }
    for group in [1, 2, 3, 4] {
        let refused = plan(&tree(), &[VfioPath::Group(group)], HOT);
        assert!(matches!(refused, Err(VfioPlanError::OnlyBridges { .. })), "{group}: {refused:?}");
    }
}

#[test]
fn this_kernel_has_devices_by_their_own_node_only_in_sysfs() {
    // Linux 6.1 has the class vfio-dev, but no /dev/vfio/devices.
    assert_eq!(tree().sysfs().vfio_cdev(4).unwrap(), None);
    let functions = tree().sysfs().pci_functions().unwrap();
    assert!(functions.len() > 10 && functions.iter().all(|function| function.vfio_cdev.is_none()));
    assert_eq!(tree().sysfs().iommu_groups().unwrap(), (0..=10).collect::<Vec<_>>());
}

#[test]
fn a_container_may_call_the_node_what_it_likes() {
    let device = |minor| LinuxDevice {
        path: "/dev/disk-of-mine".into(),
        kind: NodeKind::Character,
        major: 245,
        minor,
        mode: None,
        uid: None,
        gid: None,
    };
    for (minor, group) in [(0, 9), (1, 10), (2, 7), (3, 6)] {
        let asked = request_of_linux_device(&device(minor), Access::ReadWrite, &tree().sysfs(), None);
        let Ok(Some(Requested::Vfio(wanted))) = asked else { panic!("{asked:?}") };
        assert_eq!(wanted.path, VfioPath::Group(group));
    }
}
