//! What a container asks for: from an entry of `linux.devices`, or from a mount.

mod filter;
mod linux_device;
mod mount;
mod source;

use serde::{Deserialize, Serialize};
use vc_types::GuestPath;

use crate::spec::Access;
use crate::vfio::{VfioPath, VfioWanted};

pub use filter::{Dropped, Filtered, control_first, without_removable_media};
pub use linux_device::{LinuxDevice, LinuxDeviceError, NodeKind, VhostUserSockets, request_of_linux_device};
pub use mount::{
    AccessError, AccessFacts, BLOCK_FILE_OPTION, Mount, MountError, PathKind, PmemBacking, decide_access,
    request_of_disk, request_of_mount,
};
pub use source::{DeviceIdentity, DeviceSource, FileId, NamedFile};

/// A device that a container asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRequest {
    /// What it is on the host.
    pub source: DeviceSource,
    /// Whether the container may write to it.
    pub access: Access,
    /// The node that the container finds, when it asked for one.
    pub node: Option<ContainerNode>,
}

/// A device node in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerNode {
    /// Where it is.
    pub path: GuestPath,
    /// Its permission bits, if they are asked for.
    pub mode: Option<u32>,
    /// Its owner, if one is asked for.
    pub uid: Option<u32>,
    /// Its group, if one is asked for.
    pub gid: Option<u32>,
}

/// What an entry of `linux.devices` turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requested {
    /// A device that stands for itself.
    Device(DeviceRequest),
    /// A node of VFIO; [`plan_vfio`](crate::plan_vfio) tells which devices are behind it.
    Vfio(VfioWanted),
}

impl Requested {
    /// Whether it is `/dev/vfio/vfio`.
    pub fn is_vfio_control(&self) -> bool {
        matches!(self, Self::Vfio(VfioWanted { path: VfioPath::Control, .. }))
    }
}
