//! Records of devices: nothing is lost in them, and nothing that was edited by hand gets in.

use serde_json::{Value, json};
use vc_device::{
    Access, AttachError, Capacity, ContainerNode, DeviceRequest, DeviceSource, FileId, GuestLocation,
    Lifetime, Port, PortKind, Registry, Topology, VfioFunction, VfioPath,
};
use vc_types::{GuestPath, HostPath};

use crate::attach::{at, block, character, container, plugged};

fn round(registry: &Registry) -> Registry {
    serde_json::from_str(&serde_json::to_string(registry).unwrap()).unwrap()
}

#[test]
fn l28_everything_about_a_device_survives_a_record() {
    let mut registry = Registry::default();
    let path = || HostPath::new("/with space/ä").unwrap();
    let file = FileId { device: "0:47".parse().unwrap(), inode: u64::MAX };
    let node = Some(ContainerNode {
        path: GuestPath::new("/dev/xvda").unwrap(),
        mode: Some(0o600),
        uid: Some(1),
        gid: Some(u32::MAX),
    });
    let function = VfioFunction::Pci("0000:3b:00.0".parse().unwrap());
    let mdev = VfioFunction::Mdev("f79944e4-5a3d-11e8-99ce-479cbab002e4".parse().unwrap());
    let sources = [
        DeviceSource::Block { number: "259:300".parse().unwrap(), path: path() },
        DeviceSource::File { file, path: path() },
        DeviceSource::Character { number: "1:3".parse().unwrap(), path: path() },
        DeviceSource::Pmem { file: FileId { inode: 2, ..file }, path: path(), fs_type: "xfs".into() },
        DeviceSource::Vfio { function, via: VfioPath::Group(12), port: Port::SwitchPort },
        DeviceSource::Vfio { function: mdev, via: VfioPath::Cdev(3), port: Port::RootPort },
        DeviceSource::VfioAp {
            mdev: "29c177bb-8b23-4a4c-9b3e-3f8a0c1d2e3f".parse().unwrap(),
            via: VfioPath::Group(0),
        },
        DeviceSource::VhostUserBlk { socket: path() },
        DeviceSource::VhostUserFs { socket: HostPath::new("/other").unwrap() },
        DeviceSource::Network { namespace: FileId { inode: 3, ..file }, interface: "eth0".into() },
        DeviceSource::Vsock { cid: 77 },
    ];
    for (number, source) in sources.into_iter().enumerate() {
        let access = if number % 2 == 0 { Access::ReadOnly } else { Access::ReadWrite };
        let lifetime = if number % 3 == 0 { Lifetime::Pod } else { Lifetime::Container };
        let request = DeviceRequest { source, access, node: node.clone() };
        let attached = registry.attach(&request, &container("web-1"), lifetime).unwrap();
        if number % 4 == 0 {
            let _ = registry.plugged(&attached.device, at(&format!("0{number}/00")));
        }
    }
    let gone = registry.handles(&container("web-1")).pop().unwrap();
    let detached = registry.detach(gone).unwrap();
    registry.unplug_failed(&detached.device).unwrap();
    assert_eq!(round(&registry), registry);
    assert_eq!(registry.devices().count(), 11);
}

#[test]
fn handles_are_found_again_after_a_restart() {
    let mut registry = Registry::default();
    let attached = plugged(&mut registry, &block("8:0", Access::ReadWrite), "a", "08/00");
    let mut restored = round(&registry);
    assert_eq!(restored.handles(&container("a")), [attached.handle]);
    assert!(restored.detach(restored.handles(&container("a")).remove(0)).is_ok());
    // A handle that was given before the restart is never given again.
    let next = restored.attach(&character("1:3"), &container("a"), Lifetime::Container).unwrap();
    assert!(registry.detach(next.handle).is_err());
}

/// A sound record, for editing.
fn record() -> Value {
    let mut registry = Registry::default();
    let _disk = plugged(&mut registry, &block("8:0", Access::ReadOnly), "a", "08/00").handle;
    let _other = plugged(&mut registry, &block("8:16", Access::ReadWrite), "a", "08.1/00").handle;
    let _node = registry.attach(&character("1:3"), &container("a"), Lifetime::Container).unwrap();
    serde_json::to_value(&registry).unwrap()
}

fn refusal(edit: impl FnOnce(&mut Value)) -> String {
    let mut record = record();
    edit(&mut record);
    serde_json::from_value::<Registry>(record).unwrap_err().to_string()
}

#[test]
fn an_edited_record_is_refused_with_the_reason() {
    assert!(serde_json::from_value::<Registry>(record()).is_ok());
    // Devices by name: char0, disk0, disk1.
    let disk = |r: &mut Value| r["devices"][1].clone();
    for (why, text) in [
        ("version 2", refusal(|r| r["version"] = json!(2))),
        (
            "disk0 twice",
            refusal(|r| {
                let mut d = disk(r);
                d["source"]["block"]["number"] = json!("9:9");
                d["state"]["plugged"]["pci"] = json!("0a/00");
                d["uses"] = json!([]);
                r["devices"].as_array_mut().unwrap().push(d)
            }),
        ),
        ("under two names", refusal(|r| r["devices"][2]["source"] = r["devices"][1]["source"].clone())),
        ("two devices at 08/00", refusal(|r| r["devices"][2]["state"] = r["devices"][1]["state"].clone())),
        ("handle 0", refusal(|r| r["devices"][2]["uses"][0]["handle"] = json!(0))),
        ("handle 99", refusal(|r| r["devices"][2]["uses"][0]["handle"] = json!(99))),
        ("starts with disk", refusal(|r| r["devices"][1]["name"] = json!("char7"))),
        (
            "being plugged",
            refusal(|r| {
                r["devices"][1]["state"] = json!("plugging");
                r["devices"][1]["uses"] = json!([])
            }),
        ),
        ("being unplugged", refusal(|r| r["devices"][1]["state"] = json!({"unplugging": {"from": null}}))),
        ("unknown state", refusal(|r| r["devices"][1]["state"] = json!("uncertain"))),
        ("without a plug", refusal(|r| r["devices"][1]["state"] = json!("made"))),
        ("plugged at 0b/00", refusal(|r| r["devices"][0]["state"] = json!({"plugged": {"pci": "0b/00"}}))),
        ("access ReadOnly", refusal(|r| r["devices"][1]["uses"][0]["by"]["access"] = json!("read-write"))),
        ("unknown field", refusal(|r| r["devices"][1]["sourc"] = json!(1))),
        ("missing field", refusal(|r| drop(r.as_object_mut().unwrap().remove("devices")))),
        ("no device number", refusal(|r| r["devices"][1]["source"]["block"]["number"] = json!("8"))),
        ("must not contain", refusal(|r| r["devices"][1]["uses"][0]["by"]["container"] = json!("a/../b"))),
        ("invalid", refusal(|r| r["next_handle"] = json!(-1))),
    ] {
        assert!(text.contains(why), "{why}: {text}");
    }
}

#[test]
fn handle_numbers_do_not_overflow() {
    let mut record = record();
    record["next_handle"] = json!(u64::MAX);
    let mut registry: Registry = serde_json::from_value(record).unwrap();
    let before = registry.clone();
    let refused = registry.attach(&character("1:5"), &container("a"), Lifetime::Container);
    assert_eq!(refused, Err(AttachError::HandlesUsedUp));
    assert_eq!(registry, before);
}

#[test]
fn a_topology_survives_a_record_and_an_edited_one_is_refused() {
    let capacity = Capacity { root_ports: 4, switch_ports: 2, bridges: 1, scsi_controller: true };
    let mut topology = Topology::new(capacity).unwrap();
    for (name, kind) in [
        ("a", PortKind::RootPort),
        ("b", PortKind::RootPort),
        ("c", PortKind::SwitchPort),
        ("d", PortKind::BridgePort),
        ("e", PortKind::ScsiUnit),
    ] {
        topology.take(&name.parse().unwrap(), kind).unwrap();
    }
    topology.give_back(&"a".parse().unwrap()).unwrap();
    let record = serde_json::to_value(&topology).unwrap();
    assert_eq!(serde_json::from_value::<Topology>(record.clone()).unwrap(), topology);
    let refusal = |edit: fn(&mut Value)| {
        let mut record = record.clone();
        edit(&mut record);
        serde_json::from_value::<Topology>(record).unwrap_err().to_string()
    };
    for (why, text) in [
        ("version 0", refusal(|r| r["version"] = json!(0))),
        ("no machine", refusal(|r| r["capacity"]["root_ports"] = json!(200))),
        ("number 4 of the root ports", refusal(|r| r["plugged"][0]["index"] = json!(4))),
        ("taken or not there", refusal(|r| r["plugged"][0]["index"] = json!(65535))),
        ("taken or not there", refusal(|r| r["capacity"]["scsi_controller"] = json!(false))),
        ("two places", refusal(|r| r["plugged"][1]["device"] = json!("b"))),
        ("unknown field", refusal(|r| r["plugged"][1]["slot"] = json!(1))),
    ] {
        assert!(text.contains(why), "{why}: {text}");
    }
    assert_eq!(GuestLocation::Memory(1).to_string(), "/dev/pmem1");
}
