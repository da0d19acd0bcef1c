//! Character devices: made in the guest by the agent, never plugged.

use vc_types::{DeviceId, DeviceNumber, GuestPath};

/// A character device that a container is to find.
///
/// The guest has a driver for it or not; the host only says which node to make (OCI runtime spec,
/// `linux.devices`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CharacterSpec {
    /// Names the device within its machine.
    pub id: DeviceId,
    /// Major and minor.
    pub number: DeviceNumber,
    /// Where the container finds it.
    pub path: GuestPath,
    /// The node's permission bits, if they are asked for.
    pub mode: Option<u32>,
    /// The node's owner in the container, if one is asked for.
    pub uid: Option<u32>,
    /// The node's group in the container, if one is asked for.
    pub gid: Option<u32>,
}
