//! Devices of a request: the specification names them by the host's numbers, the container needs the
//! guest's.

use crate::block::{BlockAddress, wait_for_block};
use crate::error::CallError;
use crate::guest::Guest;
use nix::sys::stat::{major, minor, stat};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Spec};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vc_agent_protocol::agent::Device;
use vc_types::Deadline;

/// How long a plugged device may take to appear.
const DEVICE_WAIT: Duration = Duration::from_secs(10);

/// A device's type and numbers.
type Numbers = (LinuxDeviceType, i64, i64);

/// Replaces the numbers of each of `devices` in `spec`, in its list of devices and in the rules about
/// them, by those that the device has in this guest.
pub(super) async fn use_guest_numbers(
    guest: &Guest,
    devices: &[Device],
    spec: &mut Spec,
) -> Result<(), CallError> {
    let mut found = Vec::new();
    for device in devices {
        let node = node(guest, device).await?;
        found.push((PathBuf::from(&device.container_path), numbers(&node)?));
    }
    let Some(linux) = spec.linux_mut().as_mut() else { return Ok(()) };
    let mut nodes = linux.devices().clone().unwrap_or_default();
    let changes = renumber(&mut nodes, &found)?;
    if !nodes.is_empty() {
        linux.set_devices(Some(nodes));
    }
    if let Some(mut resources) = linux.resources().clone() {
        let mut rules = resources.devices().clone();
        rules.iter_mut().flatten().for_each(|rule| renumber_rule(rule, &changes));
        resources.set_devices(rules);
        linux.set_resources(Some(resources));
    }
    Ok(())
}

/// The device's node in the guest.
async fn node(guest: &Guest, device: &Device) -> Result<PathBuf, CallError> {
    let unusable = || CallError::Device(device.container_path.clone());
    match device.type_.as_str() {
        // Letters depend on the order of plugging; the addresses do not.
        "blk" | "scsi" if !device.id.is_empty() => {
            let address = match device.type_.as_str() {
                "blk" => BlockAddress::Pci(device.id.parse().map_err(|_| unusable())?),
                _ => BlockAddress::Scsi(device.id.parse().map_err(|_| unusable())?),
            };
            let deadline = Deadline::after(DEVICE_WAIT);
            Ok(wait_for_block(Path::new("/"), &address.into(), guest.events(), deadline).await?)
        }
        "blk" | "mmioblk" | "nvdimm" if device.vm_path.starts_with("/dev/") => {
            Ok(PathBuf::from(&device.vm_path))
        }
        _ => Err(unusable()),
    }
}

fn numbers(node: &Path) -> Result<Numbers, CallError> {
    let failed = |errno| CallError::System("find the device's numbers", errno);
    let device = stat(node).map_err(failed)?.st_rdev;
    let file_type = std::fs::metadata(node).map_err(|error| CallError::File(node.into(), error))?.file_type();
    let typ = if file_type.is_block_device() { LinuxDeviceType::B } else { LinuxDeviceType::C };
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Ok((typ, number(major(device)), number(minor(device))))
}

/// Gives the devices at these paths these numbers; returns the old numbers with the new ones. A path
/// that the specification does not have is an error: the container would not get the device.
fn renumber(
    devices: &mut [LinuxDevice],
    found: &[(PathBuf, Numbers)],
) -> Result<Vec<(Numbers, Numbers)>, CallError> {
    let mut changes = Vec::new();
    for (path, new) in found {
        let device = devices.iter_mut().find(|device| device.path() == path);
        let device = device.ok_or_else(|| CallError::Device(path.display().to_string()))?;
        changes.push(((device.typ(), device.major(), device.minor()), *new));
        device.set_typ(new.0).set_major(new.1).set_minor(new.2);
    }
    Ok(changes)
}

fn renumber_rule(rule: &mut LinuxDeviceCgroup, changes: &[(Numbers, Numbers)]) {
    let (Some(typ), Some(major), Some(minor)) = (rule.typ(), rule.major(), rule.minor()) else { return };
    if let Some((_, new)) = changes.iter().find(|(old, _)| *old == (typ, major, minor)) {
        rule.set_typ(Some(new.0)).set_major(Some(new.1)).set_minor(Some(new.2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_of_the_host_become_those_of_the_guest_also_when_they_cross() {
        let mut devices: Vec<LinuxDevice> = serde_json::from_value(json!([
            {"path": "/dev/a", "type": "b", "major": 8, "minor": 0},
            {"path": "/dev/b", "type": "b", "major": 8, "minor": 16},
            {"path": "/dev/null0", "type": "c", "major": 1, "minor": 3},
        ]))
        .unwrap();
        let block = |minor| (LinuxDeviceType::B, 254, minor);
        let found = [("/dev/a".into(), block(16)), ("/dev/b".into(), block(0))];
        let changes = renumber(&mut devices, &found).unwrap();
        let numbers: Vec<_> = devices.iter().map(|device| (device.major(), device.minor())).collect();
        assert_eq!(numbers, [(254, 16), (254, 0), (1, 3)]);

        let rule = |minor| json!({"allow": true, "type": "b", "major": 8, "minor": minor, "access": "r"});
        let mut rules: Vec<LinuxDeviceCgroup> =
            serde_json::from_value(json!([rule(0), rule(16), rule(32), {"allow": false}])).unwrap();
        rules.iter_mut().for_each(|rule| renumber_rule(rule, &changes));
        let numbers: Vec<_> = rules.iter().map(|rule| (rule.major(), rule.minor())).collect();
        assert_eq!(numbers, [(Some(254), Some(16)), (Some(254), Some(0)), (Some(8), Some(32)), (None, None)]);
        // L-29: an unknown device does not make the others disappear, it is an error.
        assert!(renumber(&mut devices, &[("/dev/absent".into(), block(1))]).is_err());
    }
}
