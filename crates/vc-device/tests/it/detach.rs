//! Detaching devices: who unplugs, what stays, and what a failure leaves.

use vc_device::{
    Access, AttachError, AttachStep, DetachStep, DeviceState, Handle, Lifetime, Registry, UnplugRefused,
};

use crate::attach::{at, block, character, container, plugged};

const RW: Access = Access::ReadWrite;

/// The same handle again, as somebody gets it who reads a record twice.
fn copy(handle: &Handle) -> Handle {
    serde_json::from_str(&serde_json::to_string(handle).unwrap()).unwrap()
}

#[test]
fn r1_the_device_is_known_until_its_last_user_has_detached() {
    let mut registry = Registry::default();
    let disk = block("8:0", RW);
    let first = plugged(&mut registry, &disk, "a", "08/00");
    let second = registry.attach(&disk, &container("b"), Lifetime::Container).unwrap();
    let detached = registry.detach(first.handle).unwrap();
    assert_eq!(detached.step, DetachStep::StillUsed(1));
    // runtime-rs forgot the device here, and the second user's clean-up failed.
    let detached = registry.detach(second.handle).unwrap();
    assert_eq!(detached.step, DetachStep::Unplug);
    registry.unplugged(&detached.device).unwrap();
    assert_eq!(registry.devices().count(), 0);
}

#[test]
fn a_handle_is_given_back_once() {
    let mut registry = Registry::default();
    let disk = block("8:0", RW);
    let first = plugged(&mut registry, &disk, "a", "08/00");
    let _second = registry.attach(&disk, &container("b"), Lifetime::Container).unwrap();
    let again = copy(&first.handle);
    assert_eq!(registry.detach(first.handle).unwrap().step, DetachStep::StillUsed(1));
    let before = registry.clone();
    let refused = registry.detach(copy(&again)).unwrap_err();
    assert_eq!(refused.0, again, "whoever asked has the handle back");
    assert_eq!(registry, before);
}

#[test]
fn l13_what_was_never_attached_cannot_be_detached_and_harms_nobody() {
    let mut registry = Registry::default();
    let mut other = Registry::default();
    let foreign = plugged(&mut other, &block("8:0", RW), "x", "08/00").handle;
    assert!(registry.detach(foreign).is_err());
    assert_eq!(registry, Registry::default());
    assert!(registry.detach_container(&container("x")).is_empty());
}

#[test]
fn l16_a_stop_may_be_repeated_and_one_device_holds_up_no_other() {
    let mut registry = Registry::default();
    for (number, slot) in [("8:0", "08/00"), ("8:16", "08.1/00"), ("8:32", "08.2/00")] {
        let _handle = plugged(&mut registry, &block(number, RW), "a", slot).handle;
    }
    let first: Vec<_> = registry.detach_container(&container("a"));
    assert_eq!(first.iter().filter(|detached| detached.step == DetachStep::Unplug).count(), 3);
    // The first unplugs, the second fails, the third unplugs all the same.
    registry.unplugged(&first[0].device).unwrap();
    registry.unplug_failed(&first[1].device).unwrap();
    registry.unplugged(&first[2].device).unwrap();
    // The stop again: nothing is attached any more, and what is left is named.
    assert!(registry.detach_container(&container("a")).is_empty());
    let left: Vec<_> = registry.unused().cloned().collect();
    assert_eq!(left, [first[1].device.clone()]);
    assert_eq!(registry.unplug(&left[0]), Ok(DetachStep::Unplug));
    registry.unplugged(&left[0]).unwrap();
    assert_eq!(registry.devices().count(), 0);
}

#[test]
fn r7_a_device_that_cannot_be_unplugged_keeps_its_name_and_its_place() {
    let mut registry = Registry::default();
    let attached = plugged(&mut registry, &block("8:0", RW), "a", "08/00");
    let detached = registry.detach(attached.handle).unwrap();
    let busy = registry.attach(&block("8:0", RW), &container("b"), Lifetime::Container);
    assert!(matches!(busy, Err(AttachError::Busy { .. })), "{busy:?}");
    registry.unplug_failed(&detached.device).unwrap();
    // Another device does not get the name, and the next user finds the first one where it is.
    let other = registry.attach(&block("8:16", RW), &container("b"), Lifetime::Container).unwrap();
    assert_ne!(other.device, detached.device);
    let again = registry.attach(&block("8:0", RW), &container("b"), Lifetime::Container).unwrap();
    assert_eq!((again.device, again.step), (detached.device, AttachStep::Ready(at("08/00"))));
}

#[test]
fn l27_a_plug_without_an_answer_is_taken_back_by_an_unplug() {
    let mut registry = Registry::default();
    let disk = block("8:0", RW);
    let attached = registry.attach(&disk, &container("a"), Lifetime::Pod).unwrap();
    let detached = registry.detach(attached.handle).unwrap();
    assert_eq!(detached.step, DetachStep::Unplug, "not kept for the pod: nobody knows whether it is there");
    registry.unplug_failed(&detached.device).unwrap();
    assert_eq!(registry.state(&detached.device), Some(&DeviceState::Uncertain));
    let refused = registry.attach(&disk, &container("b"), Lifetime::Container);
    assert!(matches!(refused, Err(AttachError::Busy { .. })), "{refused:?}");
    assert_eq!(registry.unplug(&detached.device), Ok(DetachStep::Unplug));
    registry.unplugged(&detached.device).unwrap();
    assert!(registry.attach(&disk, &container("b"), Lifetime::Container).is_ok());
}

#[test]
fn an_init_containers_volume_stays_plugged_for_the_next_container() {
    let mut registry = Registry::default();
    let disk = block("8:0", RW);
    let init = registry.attach(&disk, &container("init"), Lifetime::Pod).unwrap();
    registry.plugged(&init.device, at("08/00")).unwrap();
    assert_eq!(registry.detach(init.handle).unwrap().step, DetachStep::Kept);
    let web = registry.attach(&disk, &container("web"), Lifetime::Container).unwrap();
    assert_eq!(web.step, AttachStep::Ready(at("08/00")));
    let refused = registry.unplug(&web.device);
    assert_eq!(refused, Err(UnplugRefused::Used { device: web.device.clone(), uses: 1 }));
    assert_eq!(registry.detach(web.handle).unwrap().step, DetachStep::Kept, "once of the pod, always");
    let of_pod: Vec<_> = registry.unused().collect();
    assert_eq!(of_pod, [&web.device]);
    assert_eq!(registry.unplug(&web.device), Ok(DetachStep::Unplug));
    assert_eq!(registry.unplug(&web.device), Err(UnplugRefused::Unplugging(web.device.clone())));
    registry.unplugged(&web.device).unwrap();
    assert_eq!(registry.unplug(&web.device), Err(UnplugRefused::Unknown(web.device)));
}

#[test]
fn l10_l11_r9_whatever_a_container_attached_is_released_although_it_never_came_to_be() {
    let mut registry = Registry::default();
    let kept = plugged(&mut registry, &block("8:0", RW), "other", "08/00");
    let shared = registry.attach(&block("8:0", RW), &container("new"), Lifetime::Container).unwrap();
    let _handle = plugged(&mut registry, &block("8:16", RW), "new", "08.1/00").handle;
    let _pending = registry.attach(&block("8:32", RW), &container("new"), Lifetime::Container).unwrap();
    let _node = registry.attach(&character("1:3"), &container("new"), Lifetime::Container).unwrap();
    // The container's create fails here, and its handles are lost with it.
    let steps: Vec<_> = registry.detach_container(&container("new")).into_iter().map(|d| d.step).collect();
    let expected = [DetachStep::Forgotten, DetachStep::StillUsed(1), DetachStep::Unplug, DetachStep::Unplug];
    assert_eq!(steps, expected);
    assert!(registry.handles(&container("new")).is_empty());
    assert_eq!(registry.uses(&kept.device).count(), 1);
    assert_eq!(shared.device, kept.device);
}

#[test]
fn l18_when_a_container_goes_the_others_keep_their_own_devices() {
    let mut registry = Registry::default();
    for (by, number, slot) in [("a", "8:0", "08/00"), ("b", "8:16", "08.1/00"), ("c", "8:32", "08.2/00")] {
        let _handle = plugged(&mut registry, &block(number, RW), by, slot).handle;
    }
    let kept = registry.handles(&container("c"));
    for detached in registry.detach_container(&container("a")) {
        registry.unplugged(&detached.device).unwrap();
    }
    // The seed's containers were places in a list: with the first one gone, the last one's was its neighbour's.
    let handles = registry.handles(&container("c"));
    assert_eq!(handles, kept);
    let identity = registry.source(handles[0].device()).unwrap().identity();
    assert_eq!(identity, block("8:32", RW).source.identity());
    // A new device takes the name that is free, and nobody's handle.
    let new = plugged(&mut registry, &block("8:48", RW), "d", "08/00");
    assert_eq!(new.device.as_str(), "disk0");
    assert_eq!(registry.detach(new.handle).unwrap().device.as_str(), "disk0");
    assert_eq!(registry.handles(&container("c")), kept);
}

#[test]
fn r8_devices_of_linux_devices_are_released_at_every_restart() {
    let mut registry = Registry::default();
    for _ in 0..100 {
        let disk = plugged(&mut registry, &block("8:0", RW), "a", "08/00");
        let node = registry.attach(&character("1:3"), &container("a"), Lifetime::Container).unwrap();
        assert_eq!((disk.device.as_str(), node.device.as_str()), ("disk0", "char0"));
        for detached in registry.detach_container(&container("a")) {
            if detached.step == DetachStep::Unplug {
                registry.unplugged(&detached.device).unwrap();
            }
        }
        assert_eq!(registry.devices().count(), 0);
    }
}

#[test]
fn l29_an_unknown_device_leaves_the_list_of_the_others_alone() {
    let mut registry = Registry::default();
    let known = plugged(&mut registry, &block("8:0", RW), "a", "08/00");
    let unknown = "disk7".parse().unwrap();
    assert_eq!(registry.state(&unknown), None);
    assert_eq!(registry.uses(&unknown).count(), 0);
    assert!(registry.unplugged(&unknown).is_err());
    assert_eq!(registry.devices().collect::<Vec<_>>(), [&known.device]);
    assert_eq!(registry.handles(&container("a")), [known.handle]);
}
