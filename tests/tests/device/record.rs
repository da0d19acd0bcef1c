//! Records of devices with a byte that is another one.

use proptest::prelude::*;
use vc_device::{Access, DeviceState, GuestLocation, Lifetime, Registry};

use crate::{block, character, container};

/// Two disks and a node, as they are written down.
fn record() -> String {
    let mut registry = Registry::default();
    for (request, location) in [
        (block("8:0", Access::ReadOnly), Some("08/00")),
        (block("8:16", Access::ReadWrite), Some("08.1/00")),
        (character("1:3", Access::ReadWrite), None),
    ] {
        let attached = registry.attach(&request, &container("a"), Lifetime::Container).unwrap();
        if let Some(location) = location {
            registry.plugged(&attached.device, GuestLocation::Pci(location.parse().unwrap())).unwrap();
        }
    }
    serde_json::to_string(&registry).unwrap()
}

proptest! {
    /// Whatever a damaged record still says is sound: it can be written and read again, and no two of its
    /// devices are the same, have one name or are in one place.
    #[test]
    fn a_damaged_record_is_refused_or_sound(at in 0..10_000_usize, byte in 0x20..0x7f_u8) {
        let mut text = record().into_bytes();
        let at = at % text.len();
        text[at] = byte;
        if let Ok(registry) = serde_json::from_slice::<Registry>(&text) {
            let written = serde_json::to_string(&registry).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Registry>(&written).unwrap(), &registry);
            let devices: Vec<_> = registry.devices().collect();
            for device in &devices {
                let identity = registry.source(device).unwrap().identity();
                prop_assert_eq!(registry.find(&identity), Some(*device));
                if let Some(DeviceState::Plugged(at)) = registry.state(device) {
                    prop_assert_eq!(registry.at(at), Some(*device));
                }
            }
        }
    }
}
