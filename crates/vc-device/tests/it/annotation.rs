//! Annotations of the Container Device Interface.

use std::collections::BTreeMap;

use vc_device::{
    AnnotationError, Capacity, CdiKind, CdiKinds, ContainerRole, PciFunction, Port, PortKind, Sibling,
    Topology, VfioMode, VfioPath, annotations,
};
use vc_types::DeviceId;

use crate::tree::Tree;
use crate::vfio_plan::{HOT, plan};

const WORKLOAD: (VfioMode, ContainerRole) = (VfioMode::GuestKernel, ContainerRole::Workload);

fn function(tree: &Tree, bdf: &str) -> PciFunction {
    tree.sysfs().pci_function(bdf.parse().unwrap()).unwrap().unwrap()
}

/// Functions where they are plugged: behind the last of so many ports of a kind.
fn siblings(functions: &[(PciFunction, PortKind, usize)]) -> Vec<Sibling> {
    let all = Capacity { root_ports: 16, switch_ports: 16, bridges: 1, scsi_controller: false };
    let place = |kind, number: usize| {
        let mut topology = Topology::new(all).unwrap();
        let device = |n: usize| -> DeviceId { format!("d{n}").parse().unwrap() };
        (0..=number).map(|n| topology.take(&device(n), kind).unwrap()).last().unwrap()
    };
    let sibling = |(function, kind, number): &(PciFunction, _, _)| Sibling {
        function: function.clone(),
        place: place(*kind, *number),
    };
    functions.iter().map(sibling).collect()
}

fn pairs(annotations: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    annotations.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

#[test]
fn each_kind_is_counted_from_zero() {
    let tree = Tree::unpack("nvswitch.txt");
    let paths = [VfioPath::Group(20), VfioPath::Group(21), VfioPath::Group(22)];
    let plan = plan(&tree, &paths, HOT).unwrap();
    let (one, switch, two) =
        (function(&tree, "0000:3b:00.0"), function(&tree, "0000:5e:00.0"), function(&tree, "0000:81:00.0"));
    let plugged = siblings(&[
        (two, PortKind::RootPort, 0),
        (switch, PortKind::RootPort, 1),
        (one, PortKind::RootPort, 2),
    ]);
    let found = annotations(&plan, &plugged, &CdiKinds::default(), WORKLOAD).unwrap();
    let expected = [
        ("cdi.k8s.io/vfio20", "nvidia.com/gpu=1"),
        ("cdi.k8s.io/vfio21", "nvidia.com/nvswitch=0"),
        ("cdi.k8s.io/vfio22", "nvidia.com/gpu=0"),
    ];
    assert_eq!(pairs(&found), expected);
}

#[test]
fn l22_ports_are_compared_as_numbers_and_root_ports_come_first() {
    let tree = Tree::unpack("nvswitch.txt");
    let plan = plan(&tree, &[VfioPath::Group(20), VfioPath::Group(22)], HOT).unwrap();
    let (one, two) = (function(&tree, "0000:3b:00.0"), function(&tree, "0000:81:00.0"));
    for (first, second, expected) in [
        // As text, rp10 comes before rp2.
        ((PortKind::RootPort, 10), (PortKind::RootPort, 2), ("nvidia.com/gpu=1", "nvidia.com/gpu=0")),
        ((PortKind::SwitchPort, 0), (PortKind::RootPort, 12), ("nvidia.com/gpu=1", "nvidia.com/gpu=0")),
        ((PortKind::SwitchPort, 2), (PortKind::SwitchPort, 10), ("nvidia.com/gpu=0", "nvidia.com/gpu=1")),
    ] {
        let plugged = siblings(&[(one.clone(), first.0, first.1), (two.clone(), second.0, second.1)]);
        let found = annotations(&plan, &plugged, &CdiKinds::default(), WORKLOAD).unwrap();
        assert_eq!((found["cdi.k8s.io/vfio20"].as_str(), found["cdi.k8s.io/vfio22"].as_str()), expected);
    }
}

#[test]
fn l23_the_key_has_the_number_whatever_the_form_of_the_path() {
    let tree = Tree::unpack("gpu.txt");
    let gpu = siblings(&[(function(&tree, "0000:3b:00.0"), PortKind::RootPort, 0)]);
    for (path, key) in [(VfioPath::Cdev(3), "cdi.k8s.io/vfio3"), (VfioPath::Group(12), "cdi.k8s.io/vfio12")] {
        let plan = plan(&tree, &[path], HOT).unwrap();
        let found = annotations(&plan, &gpu, &CdiKinds::default(), WORKLOAD).unwrap();
        // The audio function is of no kind that is counted.
        assert_eq!(pairs(&found), [(key, "nvidia.com/gpu=0")]);
    }
}

#[test]
fn l23_a_group_with_several_devices_names_them_all() {
    let tree = Tree::unpack("gpu.txt");
    tree.make(r"/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.1/class = 0x030200\n");
    let plan = plan(&tree, &[VfioPath::Group(12)], HOT).unwrap();
    let (one, two) = (function(&tree, "0000:3b:00.0"), function(&tree, "0000:3b:00.1"));
    let plugged = siblings(&[(one, PortKind::RootPort, 3), (two, PortKind::RootPort, 4)]);
    let found = annotations(&plan, &plugged, &CdiKinds::default(), WORKLOAD).unwrap();
    assert_eq!(pairs(&found), [("cdi.k8s.io/vfio12", "nvidia.com/gpu=0,nvidia.com/gpu=1")]);
}

#[test]
fn a_known_device_that_is_not_plugged_is_an_error() {
    let tree = Tree::unpack("gpu.txt");
    let plan = plan(&tree, &[VfioPath::Group(12)], HOT).unwrap();
    let refused = annotations(&plan, &[], &CdiKinds::default(), WORKLOAD);
    assert!(
        matches!(refused, Err(AnnotationError::Unmatched { path: VfioPath::Group(12), .. })),
        "{refused:?}"
    );
    assert_eq!(annotations(&plan, &[], &CdiKinds(Vec::new()), WORKLOAD), Ok(BTreeMap::new()));
}

#[test]
fn other_vendors_are_one_line_of_the_table() {
    let tree = Tree::unpack("sriov.txt");
    let plan = plan(&tree, &[VfioPath::Group(32)], HOT).unwrap();
    let mut kinds = CdiKinds::default();
    let name = "nvidia.com/nic".to_owned();
    kinds.0.push(CdiKind { vendor: 0x15b3, class_prefix: "02".into(), name });
    let plugged = siblings(&[(function(&tree, "0000:3b:00.3"), PortKind::from(Port::SwitchPort), 0)]);
    let found = annotations(&plan, &plugged, &kinds, WORKLOAD).unwrap();
    assert_eq!(pairs(&found), [("cdi.k8s.io/vfio32", "nvidia.com/nic=0")]);
}

#[test]
fn only_workloads_whose_guest_drives_the_devices_are_annotated() {
    let tree = Tree::unpack("gpu.txt");
    let plan = plan(&tree, &[VfioPath::Group(12)], HOT).unwrap();
    for whom in [
        (VfioMode::Vfio, ContainerRole::Workload),
        (VfioMode::GuestKernel, ContainerRole::Pause),
        (VfioMode::Vfio, ContainerRole::Pause),
    ] {
        assert_eq!(annotations(&plan, &[], &CdiKinds::default(), whom), Ok(BTreeMap::new()));
    }
}
