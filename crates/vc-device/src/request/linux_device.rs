//! From an entry of `linux.devices` in an OCI spec to a request.

use std::collections::BTreeMap;
use std::str::FromStr;

use vc_types::{DeviceNumber, GuestPath, HostPath, InvalidDeviceNumber, InvalidPath};

use super::{ContainerNode, DeviceRequest, DeviceSource, Requested};
use crate::spec::Access;
use crate::sysfs::{Sysfs, SysfsError};
use crate::vfio::{VfioPath, VfioWanted};

/// The major number of nodes that stand for a vhost-user disk, by Kata's convention.
const VHOST_USER_BLK_MAJOR: u32 = 241;
/// The major number of nodes that stand for a vhost-user SCSI controller.
const VHOST_USER_SCSI_MAJOR: u32 = 242;

/// The type of a device node, as `linux.devices` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeKind {
    /// `b`.
    Block,
    /// `c`, or `u` for one without a buffer, which Linux does not tell apart.
    Character,
    /// `p`: no device of the host.
    Fifo,
}

impl FromStr for NodeKind {
    type Err = LinuxDeviceError;

    fn from_str(text: &str) -> Result<Self, LinuxDeviceError> {
        match text {
            "b" => Ok(Self::Block),
            "c" | "u" => Ok(Self::Character),
            "p" => Ok(Self::Fifo),
            _ => Err(LinuxDeviceError::Kind(text.to_owned())),
        }
    }
}

/// An entry of `linux.devices` (OCI runtime spec, "Devices"), not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxDevice {
    /// Where the container finds it.
    pub path: String,
    /// What it is.
    pub kind: NodeKind,
    /// Its major number.
    pub major: i64,
    /// Its minor number.
    pub minor: i64,
    /// Its permission bits, if they are asked for.
    pub mode: Option<u32>,
    /// Its owner, if one is asked for.
    pub uid: Option<u32>,
    /// Its group, if one is asked for.
    pub gid: Option<u32>,
}

/// The sockets behind vhost-user nodes; without it, such nodes are disks like any other.
pub type VhostUserSockets = BTreeMap<DeviceNumber, HostPath>;

/// Why an entry of `linux.devices` cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LinuxDeviceError {
    /// No type of the OCI spec.
    #[error("{0:?} is no type of a device node: b, c, u or p")]
    Kind(String),
    /// No path, or none that is absolute.
    #[error("a device of `linux.devices` has no usable path")]
    Path(#[source] InvalidPath),
    /// Numbers that no device has.
    #[error("device {path} of `linux.devices` has numbers that no device has")]
    Number {
        /// Where the container would find it.
        path: GuestPath,
        /// What is wrong with them.
        #[source]
        source: InvalidDeviceNumber,
    },
    /// What the kernel says about it cannot be read.
    #[error("the host's name of device {path} ({number}) cannot be found")]
    Sysfs {
        /// Where the container would find it.
        path: GuestPath,
        /// Its number.
        number: DeviceNumber,
        /// What went wrong.
        #[source]
        source: SysfsError,
    },
    /// No server is known for a vhost-user node.
    #[error("device {path} ({number}) stands for a vhost-user disk, but no server has that number")]
    NoServer {
        /// Where the container would find it.
        path: GuestPath,
        /// Its number.
        number: DeviceNumber,
    },
    /// vhost-user SCSI controllers are not supported.
    #[error(
        "device {path} ({number}) stands for a vhost-user SCSI controller, which is not supported: use vhost-user-blk"
    )]
    VhostUserScsi {
        /// Where the container would find it.
        path: GuestPath,
        /// Its number.
        number: DeviceNumber,
    },
}

/// The request behind an entry of `linux.devices`; `None` for a FIFO, which is no device of the host.
///
/// The host's path is the kernel's own name (`DEVNAME`), or the container's path for a device that the
/// kernel does not know; whoever opens it compares the two ([`DeviceSource::is_opened`]). `access` is what [`decide_access`](crate::decide_access) said.
///
/// # Errors
/// [`LinuxDeviceError`]; nothing is left out silently.
pub fn request_of_linux_device(
    device: &LinuxDevice,
    access: Access,
    sysfs: &Sysfs,
    vhost_user: Option<&VhostUserSockets>,
) -> Result<Option<Requested>, LinuxDeviceError> {
    if device.kind == NodeKind::Fifo {
        return Ok(None);
    }
    let path = GuestPath::new(&device.path).map_err(LinuxDeviceError::Path)?;
    let number = number(device).map_err(|source| LinuxDeviceError::Number { path: path.clone(), source })?;
    let name = sysfs.device_name(device.kind, number);
    let name = name.map_err(|source| LinuxDeviceError::Sysfs { path: path.clone(), number, source })?;
    let on_host = name.map_or_else(|| path.as_str().to_owned(), |name| format!("/dev/{name}"));
    let node = ContainerNode { path, mode: device.mode, uid: device.uid, gid: device.gid };
    if let Some(vfio) = VfioPath::parse(&on_host) {
        return Ok(Some(Requested::Vfio(VfioWanted { path: vfio, node })));
    }
    let on_host = HostPath::new(on_host).map_err(LinuxDeviceError::Path)?;
    let source = match (device.kind, vhost_user) {
        (NodeKind::Block, Some(sockets)) if number.major() == VHOST_USER_BLK_MAJOR => {
            let socket = sockets.get(&number).cloned();
            let no_server = || LinuxDeviceError::NoServer { path: node.path.clone(), number };
            DeviceSource::VhostUserBlk { socket: socket.ok_or_else(no_server)? }
        }
        (NodeKind::Block, Some(_)) if number.major() == VHOST_USER_SCSI_MAJOR => {
            return Err(LinuxDeviceError::VhostUserScsi { path: node.path, number });
        }
        (NodeKind::Block, _) => DeviceSource::Block { number, path: on_host },
        (NodeKind::Character | NodeKind::Fifo, _) => DeviceSource::Character { number, path: on_host },
    };
    Ok(Some(Requested::Device(DeviceRequest { source, access, node: Some(node) })))
}

fn number(device: &LinuxDevice) -> Result<DeviceNumber, InvalidDeviceNumber> {
    // Negative or too large: out of range all the same, and the message shows the nearest number.
    let narrow = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    DeviceNumber::new(narrow(device.major), narrow(device.minor))
}
