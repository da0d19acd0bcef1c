//! The record of today is read back as it was written, and so is that of every version before.

use std::collections::BTreeMap;
use std::num::NonZeroU8;

use vc_device::{Access, DeviceRequest, DeviceSource, GuestLocation, Lifetime};
use vc_hypervisor::{MachineSpec, MemoryGrowth};
use vc_storage::{CopyPlan, Part, SharedFs};
use vc_types::{GuestPath, HostPath, MiB, ProcessIdentity};

use super::*;

/// A record in which no field has its default.
fn full() -> SandboxRecord {
    let path = |path| HostPath::new(path).unwrap();
    let mut spec =
        MachineSpec::new("box".parse().unwrap(), path("/g/vmlinux"), path("/g/initrd"), path("/run/vc/box"));
    spec.vcpus = NonZeroU8::new(2).unwrap();
    spec.max_vcpus = NonZeroU8::new(4).unwrap();
    spec.memory_growth = MemoryGrowth::VirtioMem { most: MiB::new(1024).unwrap() };
    spec.accelerator = vc_hypervisor::Accelerator::Tcg;
    spec.kernel_params = vec!["agent.log=debug".into()];
    spec.hotplug_ports = 9;
    spec.pci_bridges = 1;
    spec.pmem_room = MiB::new(64);
    spec.outlives_owner = true;
    let mut record = SandboxRecord::new(MachineRecord::from(&spec), "box".into(), true);
    assert_eq!(record.machine.spec(), spec, "the machine is the one that was asked for");
    record.handle = Some("{}".into());
    record.prepared = true;
    record.volumes = vec![VolumeUse { store: "/run/direct-volumes".into(), volume: path("/pods/csi") }];
    record.passing.policy.hot_plug = Some(vc_device::Port::RootPort);
    record.passing.policy.mode = vc_device::VfioMode::Vfio;
    record.passing.kinds.0.truncate(1);
    record.sharing = Sharing { shared_fs: SharedFs::Nydus, program: Some("/opt/nydusd".into()) };
    record.sharers = 2;
    record.share_server = Some(ProcessIdentity { pid: 4711, started: 1234 });
    let follows = CopyPlan {
        part: Part::Root,
        source: path("/pods/map"),
        target: GuestPath::new("/run/map").unwrap(),
        watched: true,
    };
    let source = DeviceSource::Block { number: "259:3".parse().unwrap(), path: path("/dev/nvme0n1p3") };
    let request = DeviceRequest { source, access: Access::ReadOnly, node: None };
    let web = "web".parse().unwrap();
    let disk = record.devices.attach(&request, &web, Lifetime::Container).unwrap();
    record.devices.plugged(&disk.device, GuestLocation::Pci("08/00".parse().unwrap())).unwrap();
    let oci = r#"{"ociVersion": "1.2.0", "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 1, "gid": 2}},
        "root": {"path": "rootfs", "readonly": true}, "annotations": {"a": "b"},
        "mounts": [{"destination": "/v", "type": "bind", "source": "/srv", "options": ["ro"]}]}"#;
    record.containers.push(ContainerRecord {
        id: web,
        phase: Phase::Stopped,
        oci: serde_json::from_str(oci).unwrap(),
        layers: vec![path("/layers/top"), path("/layers/base")],
        shares: vec!["web-v-0".into()],
        rafs: Some(1),
        follows: vec![FollowRecord::of(&follows).unwrap()],
        resources: serde_json::from_str(r#"{"memory": {"limit": 1048576}, "cpu": {"shares": 512}}"#).unwrap(),
        exit: Some(ExitRecord::Status(137)),
        processes: BTreeMap::from([
            ("job".parse().unwrap(), Some(ExitRecord::Lost("the machine ended".into()))),
            ("shell".parse().unwrap(), None),
        ]),
        oom_kills: 3,
    });
    record
}

#[test]
fn l28_every_field_survives() {
    let record = full();
    assert_eq!(SandboxRecord::parse(&record.to_text().unwrap()).unwrap(), record);
}

/// These were written by programs of their time, and are never to be changed.
#[test]
fn a_record_of_every_version_is_read() {
    for text in [&include_bytes!("v5.json")[..], include_bytes!("v4.json")] {
        assert_eq!(SandboxRecord::parse(text).unwrap(), full());
    }
    let mut third = SandboxRecord { sharing: Sharing::default(), sharers: 1, ..full() };
    third.containers[0].rafs = None;
    assert_eq!(SandboxRecord::parse(include_bytes!("v3.json")).unwrap(), third);
    let second = SandboxRecord { volumes: Vec::new(), passing: Passing::default(), ..third };
    assert_eq!(SandboxRecord::parse(include_bytes!("v2.json")).unwrap(), second);
    let mut first = second;
    first.share_server = None;
    first.containers[0].shares.clear();
    first.containers[0].follows.clear();
    assert_eq!(SandboxRecord::parse(include_bytes!("v1.json")).unwrap(), first);
}

#[test]
fn another_version_is_refused_with_its_number_whatever_else_it_has() {
    let refused = SandboxRecord::parse(br#"{"version": 6, "news": []}"#).unwrap_err();
    assert!(refused.to_string().contains("version 6"), "{refused}");
    // What is no record at all stays an error.
    assert!(matches!(SandboxRecord::parse(br#"{"version": 1}"#), Err(InvalidRecord::Malformed(_))));
    let text = String::from_utf8(full().to_text().unwrap()).unwrap();
    for bad in
        [text.replace("\"prepared\"", "\"predated\""), text[..text.len() / 2].to_owned(), String::new()]
    {
        assert!(matches!(SandboxRecord::parse(bad.as_bytes()), Err(InvalidRecord::Malformed(_))), "{bad}");
    }
}
