//! Places of a machine: how many, which one next, and how a guest knows them.

use std::collections::BTreeSet;

use vc_device::{
    Access, BlockSpec, Capacity, CharacterSpec, DeviceSpec, FsTag, GuestLocation, MdevId, Place, PortError,
    PortKind, PortWish, QueueSize, RootPorts, ScsiUnit, SwitchPort, Topology, TopologyPolicy, VfioApSpec,
    VhostUserFsSpec,
};
use vc_types::{DeviceId, GuestPath, HostPath};

fn device(n: usize) -> DeviceId {
    format!("d{n}").parse().unwrap()
}

fn full() -> Topology {
    let capacity = Capacity { root_ports: 128, switch_ports: 32, bridges: 5, scsi_controller: true };
    Topology::new(capacity).unwrap()
}

#[test]
fn l20_a_freed_place_is_the_next_one_taken_and_none_is_held_twice() {
    for kind in [PortKind::RootPort, PortKind::SwitchPort, PortKind::BridgePort, PortKind::ScsiUnit] {
        let mut topology = full();
        let places: Vec<Place> = (0..12).map(|n| topology.take(&device(n), kind).unwrap()).collect();
        topology.give_back(&device(1)).unwrap();
        // The seed counted what was plugged: the next one got number 11, which is in use.
        assert_eq!(topology.take(&device(20), kind).unwrap(), places[1]);
        assert!(topology.take(&device(21), kind).unwrap() > places[11]);
    }
}

#[test]
fn r3_reuse_leaves_no_holes() {
    let mut ports = RootPorts::new(4).unwrap();
    for _ in 0..100 {
        assert_eq!(ports.take(&device(0)).unwrap().index(), 0);
        ports.give_back(&device(0)).unwrap();
    }
    for n in 0..4 {
        assert_eq!(usize::from(ports.take(&device(n)).unwrap().index()), n);
    }
    let none_free = PortError::NoneFree { kind: PortKind::RootPort, count: 4 };
    assert_eq!(ports.take(&device(9)), Err(none_free));
    assert_eq!(ports.take(&device(0)), Err(PortError::AlreadyPlugged(device(0))));
    ports.give_back(&device(1)).unwrap();
    assert_eq!(ports.give_back(&device(1)), Err(PortError::NotPlugged(device(1))));
}

#[test]
fn r6_a_bridge_slot_is_free_after_an_unplug() {
    let mut topology = Topology::new(Capacity { bridges: 1, ..Capacity::default() }).unwrap();
    for n in 0..100 {
        topology.take(&device(n), PortKind::BridgePort).unwrap();
        topology.give_back(&device(n)).unwrap();
    }
    assert!(topology.plugged().is_empty());
}

#[test]
fn l27_a_place_is_taken_until_the_unplug_is_complete() {
    let mut topology = Topology::new(Capacity { root_ports: 1, ..Capacity::default() }).unwrap();
    let place = topology.take(&device(0), PortKind::RootPort).unwrap();
    // An unplug that was asked for, refused or timed out tells the topology nothing …
    assert!(topology.take(&device(1), PortKind::RootPort).is_err());
    assert_eq!(topology.find(&device(0)), Some(place));
    // … only its end does, and then once.
    topology.give_back(&device(0)).unwrap();
    assert_eq!(topology.give_back(&device(0)), Err(PortError::NotPlugged(device(0))));
    assert_eq!(topology.take(&device(1), PortKind::RootPort).unwrap(), place);
}

#[test]
fn a_device_has_one_place_of_whatever_kind() {
    let mut topology = full();
    topology.take(&device(0), PortKind::SwitchPort).unwrap();
    assert_eq!(topology.take(&device(0), PortKind::RootPort), Err(PortError::AlreadyPlugged(device(0))));
    assert_eq!(topology.plugged().len(), 1);
}

#[test]
fn l22_places_are_in_numeric_order_root_ports_first() {
    let mut topology = full();
    for n in 0..12 {
        topology.take(&device(n), PortKind::SwitchPort).unwrap();
    }
    for n in 20..32 {
        topology.take(&device(n), PortKind::RootPort).unwrap();
    }
    let buses: Vec<String> = topology.plugged().into_iter().map(|(place, _)| place.bus()).collect();
    let root_ports = (0..12).map(|n| format!("rp{n}"));
    let expected: Vec<String> = root_ports.chain((0..12).map(|n| format!("swdp{n}"))).collect();
    assert_eq!(buses, expected);
}

#[test]
fn a_guest_knows_a_place_by_the_address_of_its_port() {
    let mut topology = full();
    let mut find = |kind, skip: usize| {
        let base = kind as usize * 1000;
        (0..=skip).map(|n| topology.take(&device(base + n), kind).unwrap()).last().unwrap()
    };
    for (kind, number, bus, location) in [
        (PortKind::RootPort, 9, "rp9", "09.1/00"),
        (PortKind::SwitchPort, 31, "swdp31", "04/00/1f/00"),
        (PortKind::BridgePort, 30, "bridge1", "19/01"),
        (PortKind::ScsiUnit, 258, "scsi0.0", "1:2"),
    ] {
        let place = find(kind, number);
        assert_eq!((place.bus().as_str(), place.guest_location().to_string().as_str()), (bus, location));
    }
    let scsi = full().take(&device(0), PortKind::ScsiUnit).unwrap().guest_location();
    assert!(matches!(scsi, GuestLocation::Scsi { controller, .. } if controller.to_string() == "03"));
    assert_eq!(ScsiUnit::controller_slot().to_string(), "03");
    assert_eq!(SwitchPort::root_port_slot().to_string(), "04");
}

#[test]
fn every_place_is_somewhere_else() {
    let mut topology = full();
    let mut locations = BTreeSet::new();
    for (kind, count) in [
        (PortKind::RootPort, 128),
        (PortKind::SwitchPort, 32),
        (PortKind::BridgePort, 150),
        (PortKind::ScsiUnit, 600),
    ] {
        for n in 0..count {
            let place = topology.take(&device(kind as usize * 1000 + n), kind).unwrap();
            assert!(locations.insert(place.guest_location()), "{place:?}");
        }
    }
    assert!(topology.take(&device(9999), PortKind::BridgePort).is_err());
}

#[test]
fn the_capacity_comes_from_the_pods_devices() {
    let policy = TopologyPolicy { most_disks_on_ports: 8, spare_root_ports: 4 };
    let port = |kind, count| vec![PortWish::Port(kind); count];
    let disks = |count| vec![PortWish::Disk; count];
    let nothing = Capacity { root_ports: 4, ..Capacity::default() };
    for (wishes, capacity) in [
        (Vec::new(), nothing),
        (vec![PortWish::Nothing; 9], nothing),
        (disks(8), Capacity { root_ports: 12, ..nothing }),
        (disks(9), Capacity { scsi_controller: true, ..nothing }),
        (disks(128), Capacity { scsi_controller: true, ..nothing }),
        // Upstream's limit of five GPUs came from a number fixed at boot.
        (port(PortKind::RootPort, 9), Capacity { root_ports: 13, ..nothing }),
        (port(PortKind::SwitchPort, 8), Capacity { switch_ports: 8, ..nothing }),
        (port(PortKind::BridgePort, 30), Capacity { bridges: 1, ..nothing }),
        (port(PortKind::BridgePort, 31), Capacity { bridges: 2, ..nothing }),
        ([port(PortKind::ScsiUnit, 1), disks(2)].concat(), Capacity { scsi_controller: true, ..nothing }),
    ] {
        let count = wishes.len();
        assert_eq!(Capacity::for_pod(wishes, policy), Ok(capacity), "{count}");
    }
}

#[test]
fn no_machine_is_planned_that_cannot_be() {
    let policy = TopologyPolicy { most_disks_on_ports: 8, spare_root_ports: 0 };
    for (kind, most) in [
        (PortKind::RootPort, 128),
        (PortKind::SwitchPort, 32),
        (PortKind::BridgePort, 150),
        (PortKind::ScsiUnit, 65535),
    ] {
        let wishes = |count| std::iter::repeat_n(PortWish::Port(kind), count);
        assert!(Capacity::for_pod(wishes(most), policy).is_ok(), "{kind}");
        let asked = most + 1;
        assert_eq!(Capacity::for_pod(wishes(asked), policy), Err(PortError::TooMany { kind, asked }));
    }
    let spare = TopologyPolicy { spare_root_ports: 255, ..policy };
    let asked = 255;
    assert_eq!(Capacity::for_pod([], spare), Err(PortError::TooMany { kind: PortKind::RootPort, asked }));
    for capacity in [
        Capacity { root_ports: 129, ..Capacity::default() },
        Capacity { switch_ports: 33, ..Capacity::default() },
        Capacity { bridges: 255, ..Capacity::default() },
    ] {
        assert!(matches!(Topology::new(capacity), Err(PortError::TooMany { .. })), "{capacity:?}");
    }
}

#[test]
fn each_kind_of_device_says_what_it_is_plugged_into() {
    let file = std::sync::Arc::new(std::fs::File::open("/dev/null").unwrap());
    let (id, path) = (device(0), HostPath::new("/x").unwrap());
    let (tag, queue_size): (FsTag, _) = ("t".parse().unwrap(), QueueSize::default());
    let null = CharacterSpec {
        id: id.clone(),
        number: "1:3".parse().unwrap(),
        path: GuestPath::new("/dev/null").unwrap(),
        mode: None,
        uid: None,
        gid: None,
    };
    let specs: [(DeviceSpec, PortWish); 4] = [
        (BlockSpec::new(id.clone(), file, path.clone(), Access::ReadOnly).into(), PortWish::Disk),
        (null.into(), PortWish::Nothing),
        (VfioApSpec { id: id.clone(), mdev: MdevId::NIL, queues: Vec::new() }.into(), PortWish::Nothing),
        (VhostUserFsSpec { id, socket: path, tag, queue_size }.into(), PortWish::Port(PortKind::RootPort)),
    ];
    for (spec, wish) in specs {
        assert_eq!(spec.port_wish(), wish, "{spec:?}");
        assert_eq!(spec.id(), &device(0));
    }
}
