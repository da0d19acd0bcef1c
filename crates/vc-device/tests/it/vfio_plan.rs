//! What becomes of a container's VFIO nodes.

use std::collections::BTreeSet;

use vc_device::{
    Capacity, ContainerNode, ContainerRole, DeviceIdentity, DeviceSource, Moment, Port, PortKind, PortWish,
    TopologyPolicy, VfioFunction, VfioMode, VfioPath, VfioPlan, VfioPlanError, VfioPolicy, VfioWanted, When,
    plan_vfio,
};
use vc_types::GuestPath;

use crate::tree::Tree;

pub(crate) const HOT: VfioPolicy =
    VfioPolicy { cold_plug: None, hot_plug: Some(Port::RootPort), mode: VfioMode::GuestKernel };
const COLD: VfioPolicy = VfioPolicy { cold_plug: Some(Port::SwitchPort), hot_plug: None, ..HOT };

pub(crate) fn wanted(path: VfioPath) -> VfioWanted {
    let node =
        ContainerNode { path: GuestPath::new(path.to_string()).unwrap(), mode: None, uid: None, gid: None };
    VfioWanted { path, node }
}

pub(crate) fn plan(tree: &Tree, paths: &[VfioPath], policy: VfioPolicy) -> Result<VfioPlan, VfioPlanError> {
    plan_at(tree, paths, policy, Moment::Running, &BTreeSet::new())
}

fn plan_at(
    tree: &Tree,
    paths: &[VfioPath],
    policy: VfioPolicy,
    moment: Moment,
    present: &BTreeSet<VfioFunction>,
) -> Result<VfioPlan, VfioPlanError> {
    let paths: Vec<_> = paths.iter().copied().map(wanted).collect();
    plan_vfio(&paths, &tree.sysfs(), present, policy, (moment, ContainerRole::Workload))
}

fn functions(plan: &VfioPlan) -> Vec<(String, When)> {
    plan.functions.iter().map(|planned| (planned.member.function().to_string(), planned.when)).collect()
}

fn pci(bdf: &str) -> VfioFunction {
    VfioFunction::Pci(bdf.parse().unwrap())
}

#[test]
fn l24_a_group_is_planned_whole_and_without_its_bridges() {
    let hot = When::Hot(Port::RootPort);
    let plan = plan(&Tree::unpack("gpu.txt"), &[VfioPath::Group(12)], HOT).unwrap();
    assert_eq!(functions(&plan), [("0000:3b:00.0".into(), hot), ("0000:3b:00.1".into(), hot)]);
}

#[test]
fn l25_an_nvswitch_is_planned() {
    let plan = plan(&Tree::unpack("nvswitch.txt"), &[VfioPath::Group(21)], HOT).unwrap();
    assert_eq!(functions(&plan), [("0000:5e:00.0".into(), When::Hot(Port::RootPort))]);
}

#[test]
fn a_group_with_a_member_of_the_host_is_not_planned_at_all() {
    let refused = plan(&Tree::unpack("nested-bridges.txt"), &[VfioPath::Group(7)], HOT).unwrap_err();
    let VfioPlanError::MemberNotBound { function, driver, group: 7, .. } = &refused else {
        panic!("{refused}")
    };
    assert_eq!((*function, driver.as_deref()), (pci("0000:03:01.0"), Some("ahci")));
    assert!(refused.to_string().contains("bind it to vfio-pci"), "{refused}");
    let unbound = Tree::unpack("gpu.txt");
    unbound.remove("/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.1/driver");
    let refused = plan(&unbound, &[VfioPath::Group(12)], HOT);
    assert!(matches!(refused, Err(VfioPlanError::MemberNotBound { driver: None, .. })), "{refused:?}");
}

#[test]
fn conventional_functions_behind_nested_bridges_go_to_a_bridge() {
    let tree = Tree::unpack("nested-bridges.txt");
    let ahci = "/sys/devices/pci0000:00/0000:00:1c.0/0000:01:00.0/0000:02:01.0/0000:03:01.0/driver";
    tree.make(&format!("{ahci} -> ../../../../../../bus/pci/drivers/vfio-pci"));
    let plan = plan(&tree, &[VfioPath::Group(7)], HOT).unwrap();
    let hot = When::Hot(Port::BridgePort);
    assert_eq!(functions(&plan), [("0000:03:00.0".into(), hot), ("0000:03:01.0".into(), hot)]);
}

#[test]
fn one_device_by_two_paths_is_planned_once() {
    let tree = Tree::unpack("gpu.txt");
    let plan = plan(&tree, &[VfioPath::Cdev(3), VfioPath::Group(12), VfioPath::Cdev(4)], HOT).unwrap();
    let nodes: Vec<_> = plan.functions.iter().map(|planned| planned.via).collect();
    assert_eq!(nodes, [VfioPath::Cdev(3), VfioPath::Cdev(4)]);
}

#[test]
fn by_its_own_node_every_member_needs_one() {
    let tree = Tree::unpack("gpu.txt");
    tree.remove("/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.1/vfio-dev/vfio4/dev");
    let refused = plan(&tree, &[VfioPath::Cdev(3)], HOT);
    assert!(matches!(refused, Err(VfioPlanError::MemberWithoutCdev { .. })), "{refused:?}");
    assert!(plan(&tree, &[VfioPath::Group(12)], HOT).is_ok());
}

#[test]
fn cold_hot_or_not_at_all() {
    let tree = Tree::unpack("sriov.txt");
    let both = VfioPolicy { cold_plug: Some(Port::SwitchPort), ..HOT };
    let neither = VfioPolicy { hot_plug: None, ..HOT };
    let find = |policy, moment, present: &[VfioFunction]| {
        let present = present.iter().copied().collect();
        let plan = plan_at(&tree, &[VfioPath::Group(32)], policy, moment, &present)?;
        Ok::<_, VfioPlanError>(plan.functions.first().map(|planned| planned.when))
    };
    let function = pci("0000:3b:00.3");
    let hot = Some(When::Hot(Port::RootPort));
    assert_eq!(find(HOT, Moment::Running, &[]).unwrap(), hot);
    assert_eq!(find(HOT, Moment::Launch, &[]).unwrap(), None, "later");
    assert_eq!(find(COLD, Moment::Launch, &[]).unwrap(), Some(When::Cold(Port::SwitchPort)));
    assert_eq!(find(both, Moment::Running, &[]).unwrap(), hot, "hot plug counts when both are allowed");
    assert_eq!(find(COLD, Moment::Running, &[function]).unwrap(), Some(When::Present));
    let refused = find(COLD, Moment::Running, &[]);
    assert!(matches!(refused, Err(VfioPlanError::NotColdPlugged { .. })), "{refused:?}");
    for moment in [Moment::Launch, Moment::Running] {
        let refused = find(neither, moment, &[]);
        assert!(matches!(refused, Err(VfioPlanError::NoPort { .. })), "{refused:?}");
    }
}

#[test]
fn l21_what_the_machine_has_already_is_really_skipped() {
    let tree = Tree::unpack("gpu.txt");
    let present = BTreeSet::from([pci("0000:3b:00.0")]);
    let plan = plan_at(&tree, &[VfioPath::Group(12)], HOT, Moment::Running, &present).unwrap();
    let requests: Vec<_> = plan.functions.iter().map(|planned| planned.request()).collect();
    // The seed wrote "skipping" to its log and plugged it.
    assert_eq!(requests[0], None);
    let identity = requests[1].as_ref().unwrap().source.identity();
    assert_eq!(identity, DeviceIdentity::Vfio(pci("0000:3b:00.1")));
}

#[test]
fn the_pause_container_gets_nothing() {
    let paths = [wanted(VfioPath::Control), wanted(VfioPath::Group(99))];
    let pause = (Moment::Running, ContainerRole::Pause);
    for mode in [VfioMode::Vfio, VfioMode::GuestKernel] {
        let policy = VfioPolicy { hot_plug: None, mode, ..HOT };
        let plan = plan_vfio(&paths, &Tree::unpack("gpu.txt").sysfs(), &BTreeSet::new(), policy, pause);
        assert_eq!(plan.unwrap(), VfioPlan::default());
    }
}

#[test]
fn l21_the_container_finds_the_control_node_first_or_no_node_at_all() {
    let tree = Tree::unpack("gpu.txt");
    let paths = [VfioPath::Group(12), VfioPath::Control];
    let in_guest = VfioPolicy { mode: VfioMode::Vfio, ..HOT };
    let found: Vec<_> = plan(&tree, &paths, in_guest).unwrap().nodes.iter().map(|node| node.path).collect();
    assert_eq!(found, [VfioPath::Control, VfioPath::Group(12)]);
    assert!(plan(&tree, &paths, HOT).unwrap().nodes.is_empty());
    // The same when everything is cold-plugged.
    let present = BTreeSet::from([pci("0000:3b:00.0"), pci("0000:3b:00.1")]);
    let cold = VfioPolicy { mode: VfioMode::Vfio, ..COLD };
    let plan = plan_at(&tree, &paths, cold, Moment::Running, &present).unwrap();
    assert_eq!(plan.nodes[0].path, VfioPath::Control);
    assert_eq!(plan.functions.len(), 2);
}

#[test]
fn what_does_not_exist_is_an_error() {
    let tree = Tree::unpack("gpu.txt");
    for path in [VfioPath::Group(99), VfioPath::Cdev(99)] {
        assert!(matches!(plan(&tree, &[path], HOT), Err(VfioPlanError::NoSuchDevice { .. })));
    }
    tree.make(
        "/sys/kernel/iommu_groups/13/devices/0000:3a:00.0 -> ../../../../devices/pci0000:3a/0000:3a:00.0",
    );
    let refused = plan(&tree, &[VfioPath::Group(13)], HOT);
    assert!(matches!(refused, Err(VfioPlanError::OnlyBridges { .. })), "{refused:?}");
}

#[test]
fn ap_queues_and_mediated_devices_are_planned() {
    let ap = plan(&Tree::unpack("ap.txt"), &[VfioPath::Group(0)], HOT).unwrap();
    assert_eq!(ap.functions.len(), 1);
    let request = ap.functions[0].request().unwrap();
    assert!(matches!(request.source, DeviceSource::VfioAp { via: VfioPath::Group(0), .. }), "{request:?}");
    assert_eq!(request.source.identity(), DeviceIdentity::Vfio(ap.functions[0].member.function()));
    // On a bus of their own: a machine needs no port for them.
    assert_eq!(request.source.port_wish(), PortWish::Nothing);
    let mdev = plan(&Tree::unpack("mdev.txt"), &[VfioPath::Cdev(7)], HOT).unwrap();
    assert_eq!(mdev.functions[0].via, VfioPath::Cdev(7));
    assert_eq!(mdev.functions[0].group, 40);
    let request = mdev.functions[0].request().unwrap();
    assert_eq!(request.source.port_wish(), PortWish::Port(PortKind::RootPort));
}

#[test]
fn the_capacity_for_planned_devices_is_known_before_boot() {
    let paths = [VfioPath::Group(20), VfioPath::Group(21), VfioPath::Group(22)];
    let switched = VfioPolicy { hot_plug: Some(Port::SwitchPort), ..HOT };
    let plan = plan(&Tree::unpack("nvswitch.txt"), &paths, switched).unwrap();
    let requests: Vec<_> = plan.functions.iter().filter_map(|planned| planned.request()).collect();
    let wishes = requests.iter().map(|request| request.source.port_wish());
    let policy = TopologyPolicy { spare_root_ports: 1, ..TopologyPolicy::default() };
    let expected = Capacity { root_ports: 1, switch_ports: 3, ..Capacity::default() };
    assert_eq!(Capacity::for_pod(wishes, policy), Ok(expected));
}
