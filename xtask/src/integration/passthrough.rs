//! Which PCI devices the tests may take from the host and hand to a machine. They are told in `VC_TEST_VFIO`, by address.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::plan::Plan;

const VARIABLE: &str = "VC_TEST_VFIO";
const DEVICES: &str = "/sys/bus/pci/devices";

/// Allows the tests to take these devices of this host, and no other: a test never chooses a device by itself.
pub(super) fn name_devices(plan: &mut Plan, addresses: &[String]) -> Result<()> {
    for address in addresses {
        let exists = !address.contains('/') && Path::new(DEVICES).join(address).exists();
        ensure!(
            exists,
            "--vfio {address}: no such PCI device; `lspci -D` shows addresses such as 0000:01:00.0"
        );
    }
    if !addresses.is_empty() {
        plan.set(VARIABLE, &addresses.join(","));
    }
    Ok(())
}

/// Allows the tests to take what the nested host was given for that: all that is not on its root bus.
pub(super) fn take_the_nested_hosts(plan: &mut Plan) -> Result<()> {
    let mut addresses = Vec::new();
    for entry in fs::read_dir(DEVICES).with_context(|| format!("cannot list {DEVICES}"))? {
        let address = entry?.file_name().to_string_lossy().into_owned();
        if !address.starts_with("0000:00:") {
            addresses.push(address);
        }
    }
    ensure!(!addresses.is_empty(), "the nested host has no devices to pass on");
    addresses.sort();
    name_devices(plan, &addresses)
}
