//! Attaching devices: who plugs, who shares, who is refused.

use vc_device::{
    Access, AdoptError, AttachError, AttachStep, Attached, ContainerNode, DetachStep, DeviceRequest,
    DeviceSource, DeviceState, FileId, GuestLocation, Lifetime, Registry, ReportError, VfioPath,
};
use vc_types::{ContainerId, GuestPath, HostPath};

pub(crate) fn block(number: &str, access: Access) -> DeviceRequest {
    let source =
        DeviceSource::Block { number: number.parse().unwrap(), path: HostPath::new("/dev/x").unwrap() };
    DeviceRequest { source, access, node: None }
}

pub(crate) fn character(number: &str) -> DeviceRequest {
    let path = HostPath::new("/dev/c").unwrap();
    let source = DeviceSource::Character { number: number.parse().unwrap(), path };
    DeviceRequest { source, access: Access::ReadWrite, node: None }
}

pub(crate) fn container(name: &str) -> ContainerId {
    name.parse().unwrap()
}

pub(crate) fn at(slot: &str) -> GuestLocation {
    GuestLocation::Pci(slot.parse().unwrap())
}

/// Attaches and plugs.
pub(crate) fn plugged(registry: &mut Registry, request: &DeviceRequest, by: &str, slot: &str) -> Attached {
    let attached = registry.attach(request, &container(by), Lifetime::Container).unwrap();
    assert_eq!(attached.step, AttachStep::Plug);
    registry.plugged(&attached.device, at(slot)).unwrap();
    attached
}

#[test]
fn the_first_attach_plugs_and_later_ones_share() {
    let mut registry = Registry::default();
    let disk = block("259:3", Access::ReadWrite);
    let first = plugged(&mut registry, &disk, "a", "08/00");
    let second = registry.attach(&disk, &container("b"), Lifetime::Container).unwrap();
    assert_eq!(second.step, AttachStep::Ready(at("08/00")));
    assert_eq!(second.device, first.device);
    assert_ne!(second.handle, first.handle);
    assert_eq!(registry.uses(&first.device).count(), 2);
    // One container may use a device twice: each use counts.
    let third = registry.attach(&disk, &container("b"), Lifetime::Container).unwrap();
    assert_ne!(third.handle, second.handle);
    assert_eq!(registry.handles(&container("b")).len(), 2);
}

#[test]
fn one_device_has_many_names_and_one_identity() {
    let mut registry = Registry::default();
    let first = plugged(&mut registry, &block("259:3", Access::ReadWrite), "a", "08/00");
    let mut by_id = block("259:3", Access::ReadWrite);
    by_id.source = DeviceSource::Block {
        number: "259:3".parse().unwrap(),
        path: HostPath::new("/dev/disk/by-id/nvme").unwrap(),
    };
    assert_eq!(registry.attach(&by_id, &container("b"), Lifetime::Container).unwrap().device, first.device);
}

#[test]
fn l19_a_block_device_and_a_character_device_of_one_number_are_two() {
    let mut registry = Registry::default();
    let disk = plugged(&mut registry, &block("7:0", Access::ReadWrite), "a", "08/00");
    let node = registry.attach(&character("7:0"), &container("a"), Lifetime::Container).unwrap();
    assert_eq!(node.step, AttachStep::Made);
    assert_ne!(node.device, disk.device);
}

#[test]
fn r4_read_only_and_read_write_are_reconciled_or_refused() {
    for (plugged_as, asked, outcome) in [
        (Access::ReadOnly, Access::ReadOnly, true),
        (Access::ReadWrite, Access::ReadWrite, true),
        (Access::ReadWrite, Access::ReadOnly, true),
        (Access::ReadOnly, Access::ReadWrite, false),
    ] {
        let mut registry = Registry::default();
        let first = plugged(&mut registry, &block("8:0", plugged_as), "a", "08/00");
        let before = registry.clone();
        match registry.attach(&block("8:0", asked), &container("b"), Lifetime::Container) {
            // Whoever asked for less gets less: its mount is read-only.
            Ok(second) => assert!(outcome && second.access == asked, "{plugged_as:?} {asked:?}"),
            Err(error) => {
                assert!(!outcome && matches!(error, AttachError::PluggedReadOnly { .. }));
                assert_eq!(registry, before);
            }
        }
        assert_eq!(registry.access(&first.device), Some(plugged_as));
    }
}

#[test]
fn a_read_only_device_that_nobody_uses_is_unplugged_before_it_is_written_to() {
    let mut registry = Registry::default();
    let init = registry.attach(&block("8:0", Access::ReadOnly), &container("init"), Lifetime::Pod).unwrap();
    registry.plugged(&init.device, at("08/00")).unwrap();
    let ask = |registry: &mut Registry| {
        registry.attach(&block("8:0", Access::ReadWrite), &container("web"), Lifetime::Pod)
    };
    // As long as somebody reads it, it has to stay as it is.
    assert!(matches!(ask(&mut registry), Err(AttachError::PluggedReadOnly { .. })));
    assert_eq!(registry.detach(init.handle).unwrap().step, DetachStep::Kept);
    let refused = ask(&mut registry).unwrap_err();
    assert!(refused.to_string().contains("unplug it, then attach it for writing"), "{refused}");
    let AttachError::KeptReadOnly { device, .. } = refused else { panic!("{refused}") };
    assert_eq!(registry.unplug(&device), Ok(DetachStep::Unplug));
    registry.unplugged(&device).unwrap();
    let web = ask(&mut registry).unwrap();
    assert_eq!((web.step, registry.access(&web.device)), (AttachStep::Plug, Some(Access::ReadWrite)));
}

#[test]
fn who_serves_a_disk_decides_whether_it_may_be_written_to() {
    let mut registry = Registry::default();
    let source = DeviceSource::VhostUserBlk { socket: HostPath::new("/run/spdk/vol0").unwrap() };
    let request = |access| DeviceRequest { source: source.clone(), access, node: None };
    let _reader = plugged(&mut registry, &request(Access::ReadOnly), "a", "08/00").handle;
    let writer = registry.attach(&request(Access::ReadWrite), &container("b"), Lifetime::Container).unwrap();
    assert_eq!((writer.step, writer.access), (AttachStep::Ready(at("08/00")), Access::ReadWrite));
    let written = serde_json::to_string(&registry).unwrap();
    assert_eq!(serde_json::from_str::<Registry>(&written).unwrap(), registry);
}

#[test]
fn a_machine_has_one_device_on_its_ap_bus() {
    let mut registry = Registry::default();
    let mut attach = |mdev: &str| {
        let source = DeviceSource::VfioAp { mdev: mdev.parse().unwrap(), via: VfioPath::Group(0) };
        let request = DeviceRequest { source, access: Access::ReadWrite, node: None };
        let attached = registry.attach(&request, &container("a"), Lifetime::Container).unwrap();
        (attached.device.to_string(), registry.plugged(&attached.device, GuestLocation::Ap))
    };
    assert_eq!(attach("29c177bb-8b23-4a4c-9b3e-3f8a0c1d2e3f"), ("ap0".to_owned(), Ok(())));
    let second = attach("f79944e4-5a3d-11e8-99ce-479cbab002e4");
    assert!(matches!(second.1, Err(ReportError::LocationTaken { .. })), "{second:?}");
}

#[test]
fn l19_one_file_is_not_a_disk_and_memory_at_once() {
    let mut registry = Registry::default();
    let file = FileId { device: "8:1".parse().unwrap(), inode: 7 };
    let path = HostPath::new("/image").unwrap();
    let disk = DeviceSource::File { file, path: path.clone() };
    let memory = DeviceSource::Pmem { file, path, fs_type: "ext4".into() };
    let request = |source| DeviceRequest { source, access: Access::ReadOnly, node: None };
    let _handle = plugged(&mut registry, &request(disk), "a", "08/00").handle;
    let refused = registry.attach(&request(memory), &container("b"), Lifetime::Container);
    assert!(matches!(refused, Err(AttachError::OtherUse { .. })), "{refused:?}");
}

#[test]
fn l12_a_failed_plug_leaves_no_reference() {
    let mut registry = Registry::default();
    let disk = block("8:0", Access::ReadWrite);
    let attached = registry.attach(&disk, &container("a"), Lifetime::Container).unwrap();
    registry.plug_failed(attached.handle).unwrap();
    assert_eq!(registry.devices().count(), 0);
    // And the name is free again.
    let again = registry.attach(&disk, &container("a"), Lifetime::Container).unwrap();
    assert_eq!((again.step, again.device), (AttachStep::Plug, attached.device));
}

#[test]
fn r2_a_failed_plug_never_takes_a_device_from_others() {
    let mut registry = Registry::default();
    let disk = block("8:0", Access::ReadWrite);
    let first = plugged(&mut registry, &disk, "a", "08/00");
    let second = registry.attach(&disk, &container("b"), Lifetime::Container).unwrap();
    // Who shares has plugged nothing, so nothing of its can fail.
    let refused = registry.plug_failed(second.handle).unwrap_err();
    assert_eq!(registry.uses(&first.device).count(), 2);
    assert_eq!(registry.state(&first.device), Some(&DeviceState::Plugged(at("08/00"))));
    drop(refused);
}

#[test]
fn r5_nobody_comes_between_a_look_and_a_plug() {
    let mut registry = Registry::default();
    let disk = block("8:0", Access::ReadWrite);
    let attached = registry.attach(&disk, &container("a"), Lifetime::Container).unwrap();
    let refused = registry.attach(&disk, &container("b"), Lifetime::Container);
    assert!(matches!(refused, Err(AttachError::Busy { state: DeviceState::Plugging, .. })), "{refused:?}");
    registry.plugged(&attached.device, at("08/00")).unwrap();
    assert!(registry.attach(&disk, &container("b"), Lifetime::Container).is_ok());
}

#[test]
fn reports_about_unknown_or_other_devices_are_refused() {
    let mut registry = Registry::default();
    let nobody = "nobody".parse().unwrap();
    assert_eq!(registry.plugged(&nobody, at("08/00")), Err(ReportError::Unknown(nobody)));
    let attached = plugged(&mut registry, &block("8:0", Access::ReadWrite), "a", "08/00");
    let before = registry.clone();
    let twice = registry.plugged(&attached.device, at("09/00"));
    assert!(matches!(twice, Err(ReportError::Other { report: "plugged", .. })), "{twice:?}");
    assert!(registry.unplugged(&attached.device).is_err());
    assert!(registry.unplug_failed(&attached.device).is_err());
    assert_eq!(registry, before);
}

#[test]
fn character_devices_are_counted_and_never_plugged() {
    let mut registry = Registry::default();
    let path = GuestPath::new("/dev/null").unwrap();
    let node = ContainerNode { path, mode: Some(0o666), uid: Some(0), gid: None };
    let request = DeviceRequest { node: Some(node.clone()), ..character("1:3") };
    let first = registry.attach(&request, &container("a"), Lifetime::Container).unwrap();
    assert_eq!(first.step, AttachStep::Made);
    let reader = DeviceRequest { access: Access::ReadOnly, ..character("1:3") };
    assert_eq!(registry.attach(&reader, &container("b"), Lifetime::Container).unwrap().device, first.device);
    assert_eq!(registry.nodes(&container("a")), [(&first.device, &node)]);
    assert!(registry.nodes(&container("b")).is_empty());
}

#[test]
fn names_tell_the_kind_and_are_the_lowest_free() {
    let mut registry = Registry::default();
    let mut attach = |request: &DeviceRequest| {
        registry.attach(request, &container("a"), Lifetime::Container).unwrap().device.to_string()
    };
    assert_eq!(attach(&block("8:0", Access::ReadOnly)), "disk0");
    assert_eq!(attach(&block("8:1", Access::ReadOnly)), "disk1");
    assert_eq!(attach(&character("1:3")), "char0");
}

#[test]
fn what_the_machine_was_launched_with_is_adopted_once_and_kept() {
    let mut registry = Registry::default();
    let request = block("8:0", Access::ReadOnly);
    let device = registry.adopt(request.source.clone(), Access::ReadOnly, at("08/00")).unwrap();
    let twice = registry.adopt(request.source.clone(), Access::ReadOnly, at("08/00"));
    assert!(matches!(twice, Err(AdoptError::Known { .. })), "{twice:?}");
    let node = registry.adopt(character("1:3").source, Access::ReadOnly, at("09/00"));
    assert!(matches!(node, Err(AdoptError::NotPlugged(_))), "{node:?}");
    let there = registry.adopt(block("8:16", Access::ReadOnly).source, Access::ReadOnly, at("08/00"));
    assert!(matches!(there, Err(AdoptError::LocationTaken { .. })), "{there:?}");
    assert_eq!(registry.devices().count(), 1);
    let attached = registry.attach(&request, &container("a"), Lifetime::Container).unwrap();
    assert_eq!((&attached.device, attached.step), (&device, AttachStep::Ready(at("08/00"))));
}

#[test]
fn two_devices_are_never_in_one_place() {
    let mut registry = Registry::default();
    let first = plugged(&mut registry, &block("8:0", Access::ReadWrite), "a", "08/00");
    let request = block("8:16", Access::ReadWrite);
    let second = registry.attach(&request, &container("a"), Lifetime::Container).unwrap();
    let before = registry.clone();
    let refused = registry.plugged(&second.device, at("08/00"));
    let taken = ReportError::LocationTaken {
        device: second.device.clone(),
        location: at("08/00"),
        other: first.device.clone(),
    };
    assert_eq!((refused, &registry), (Err(taken), &before));
    assert_eq!(registry.at(&at("08/00")), Some(&first.device));
    registry.plugged(&second.device, at("09/00")).unwrap();
}
