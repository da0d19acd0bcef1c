//! Properties of the device model. They stand here because `vc-device` is to bring few crates, those of its tests
//! included; its tests of single behaviours are beside it.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail with the test")]

mod machine;
mod model;
mod record;

use proptest::prelude::ProptestConfig;
use proptest_state_machine::prop_state_machine;
use vc_device::{Access, DeviceRequest, DeviceSource};
use vc_types::{ContainerId, HostPath};

use machine::Machine;

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_keeps_counts_slots_and_names_consistent(sequential 1..60 => Machine);
}

fn block(number: &str, access: Access) -> DeviceRequest {
    let path = HostPath::new("/dev/x").unwrap();
    let source = DeviceSource::Block { number: number.parse().unwrap(), path };
    DeviceRequest { source, access, node: None }
}

fn character(number: &str, access: Access) -> DeviceRequest {
    let path = HostPath::new("/dev/c").unwrap();
    let source = DeviceSource::Character { number: number.parse().unwrap(), path };
    DeviceRequest { source, access, node: None }
}

fn container(name: &str) -> ContainerId {
    name.parse().unwrap()
}
