//! What the tests of the recipes share.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use vc_device::{Capacity, PortKind, Topology};
use vc_types::HostPath;

use crate::devices::{Devices, Taken, Wanted};

use super::recipe::{Recipe, SetNumbers};

/// What most devices want.
pub(crate) const PCI: Wanted = Wanted::Port(PortKind::RootPort);

/// Compares a text with what is known to be right, a file below `tests/golden/plug`.
pub(crate) fn assert_golden(name: &str, text: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plug").join(name);
    let golden = std::fs::read_to_string(file).unwrap();
    assert_eq!(text, golden.trim_end(), "{name}");
}

pub(crate) fn file() -> Arc<File> {
    Arc::new(File::open("/dev/null").unwrap())
}

pub(crate) fn name() -> HostPath {
    HostPath::new("/images/a").unwrap()
}

/// The first place of a machine with so many ports and bridges.
pub(crate) fn place(wanted: Wanted, root_ports: u8, bridges: u8) -> Taken {
    let capacity = Capacity { root_ports, bridges, scsi_controller: true, ..Capacity::default() };
    let mut devices = Devices::new(Topology::new(capacity).unwrap());
    devices.take(&"x".parse().unwrap(), wanted).unwrap().0
}

pub(crate) fn sets(make: impl FnOnce(&SetNumbers<'_>) -> Recipe) -> Recipe {
    make(&SetNumbers(&AtomicI64::new(0)))
}
