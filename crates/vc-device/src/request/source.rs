//! What a device is on the host, and by what it is told from others.

use std::fmt;

use serde::{Deserialize, Serialize};
use vc_types::{DeviceNumber, HostPath, VsockCid};

use super::PathKind;
use crate::spec::{MdevId, VfioFunction};
use crate::topology::{PortKind, PortWish};
use crate::vfio::{Port, VfioPath};

/// A file, known by what names cannot change: its file system and its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileId {
    /// `st_dev`.
    pub device: DeviceNumber,
    /// `st_ino`.
    pub inode: u64,
}

/// A file and where to open it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedFile {
    /// Which file.
    pub file: FileId,
    /// Where to open it.
    pub path: HostPath,
}

/// What a device is on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DeviceSource {
    /// A block device.
    Block {
        /// Its number.
        number: DeviceNumber,
        /// Where to open it.
        path: HostPath,
    },
    /// A disk image in a regular file.
    File {
        /// Which file.
        file: FileId,
        /// Where to open it.
        path: HostPath,
    },
    /// Several read-only images as the partitions of one disk.
    Partitioned {
        /// The images, in the order of the partitions.
        images: Vec<NamedFile>,
    },
    /// A character device, made in the guest by the agent.
    Character {
        /// Its number.
        number: DeviceNumber,
        /// Where the host has it.
        path: HostPath,
    },
    /// A file that the guest gets as memory.
    Pmem {
        /// Which file.
        file: FileId,
        /// Where to open it.
        path: HostPath,
        /// What the guest mounts it as.
        fs_type: String,
    },
    /// A device that is passed by VFIO.
    Vfio {
        /// Which.
        function: VfioFunction,
        /// By which node.
        via: VfioPath,
        /// Where it is plugged.
        port: Port,
    },
    /// Cryptographic queues of IBM Z, passed by VFIO.
    VfioAp {
        /// The mediated device that they are in.
        mdev: MdevId,
        /// By which node.
        via: VfioPath,
    },
    /// A disk that another process serves.
    VhostUserBlk {
        /// The server's socket.
        socket: HostPath,
    },
    /// A shared directory that another process serves.
    VhostUserFs {
        /// The server's socket.
        socket: HostPath,
    },
    /// A network interface, known by its name in the network namespace that it comes from.
    Network {
        /// The namespace.
        namespace: FileId,
        /// The interface.
        interface: String,
    },
    /// The vsock device.
    Vsock {
        /// The guest's context id.
        cid: u32,
    },
}

/// By what a device is told from others: two requests with the same identity mean one device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceIdentity {
    /// A block device's number. A character device of the same number is another device.
    Block(DeviceNumber),
    /// A character device's number.
    Character(DeviceNumber),
    /// A file, whether as a disk or as memory.
    File(FileId),
    /// The files on one disk, in the order of its partitions.
    Partitions(Vec<FileId>),
    /// A device that is passed by VFIO: its PCI address or its mdev, never its path.
    Vfio(VfioFunction),
    /// The socket of who serves it.
    Socket(HostPath),
    /// A network interface.
    Network(FileId, String),
    /// The vsock device, of which a guest has one.
    Vsock,
}

impl fmt::Display for DeviceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(number) => write!(f, "block device {number}"),
            Self::Character(number) => write!(f, "character device {number}"),
            Self::File(file) => write!(f, "file {} of device {}", file.inode, file.device),
            Self::Partitions(files) => write!(f, "disk of {} images", files.len()),
            Self::Vfio(function) => write!(f, "VFIO device {function}"),
            Self::Socket(socket) => write!(f, "server at {socket}"),
            Self::Network(_, interface) => write!(f, "network interface {interface}"),
            Self::Vsock => f.write_str("vsock device"),
        }
    }
}

impl DeviceSource {
    /// By what it is told from others.
    pub fn identity(&self) -> DeviceIdentity {
        match self {
            Self::Block { number, .. } => DeviceIdentity::Block(*number),
            Self::Character { number, .. } => DeviceIdentity::Character(*number),
            Self::File { file, .. } | Self::Pmem { file, .. } => DeviceIdentity::File(*file),
            Self::Partitioned { images } => {
                DeviceIdentity::Partitions(images.iter().map(|image| image.file).collect())
            }
            Self::Vfio { function, .. } => DeviceIdentity::Vfio(*function),
            Self::VfioAp { mdev, .. } => DeviceIdentity::Vfio(VfioFunction::Mdev(*mdev)),
            Self::VhostUserBlk { socket } | Self::VhostUserFs { socket } => {
                DeviceIdentity::Socket(socket.clone())
            }
            Self::Network { namespace, interface } => DeviceIdentity::Network(*namespace, interface.clone()),
            Self::Vsock { .. } => DeviceIdentity::Vsock,
        }
    }

    /// Whether the hypervisor has to plug it; the agent makes the others without help.
    pub fn is_plugged(&self) -> bool {
        !matches!(self, Self::Character { .. })
    }

    /// Whether it is plugged either read-only or for writing. Of the others the agent decides, or whoever serves
    /// them, or the driver in the guest.
    pub(crate) fn has_access_mode(&self) -> bool {
        matches!(self, Self::Block { .. } | Self::File { .. } | Self::Partitioned { .. } | Self::Pmem { .. })
    }

    /// Whether what was opened by this source's path is what was asked for: `opened` is what fstat(2) says
    /// about the descriptor. A path may lead elsewhere by the time that it is opened.
    pub fn is_opened(&self, opened: &PathKind) -> bool {
        match (self, opened) {
            (Self::Block { number, .. }, PathKind::Block(found))
            | (Self::Character { number, .. }, PathKind::Character(found)) => number == found,
            (Self::File { file, .. } | Self::Pmem { file, .. }, PathKind::Regular(found)) => file == found,
            _ => false,
        }
    }

    /// What it is to be plugged into.
    pub fn port_wish(&self) -> PortWish {
        match self {
            Self::Block { .. } | Self::File { .. } | Self::Partitioned { .. } => PortWish::Disk,
            // AP queues are on a bus of their own.
            Self::Character { .. } | Self::VfioAp { .. } => PortWish::Nothing,
            Self::Vfio { port, .. } => PortWish::Port((*port).into()),
            Self::Pmem { .. }
            | Self::VhostUserBlk { .. }
            | Self::VhostUserFs { .. }
            | Self::Network { .. }
            | Self::Vsock { .. } => PortWish::Port(PortKind::RootPort),
        }
    }

    /// Whether `other` asks for the same thing in the same way. Where it is opened may differ: one
    /// device has many names.
    pub(crate) fn is_same_use(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Vsock { cid: one }, Self::Vsock { cid: two }) => one == two,
            (Self::Pmem { fs_type: one, .. }, Self::Pmem { fs_type: two, .. }) => one == two,
            // The port is where the first one was plugged; a later wish cannot move it.
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// What the names of such devices start with.
    pub(crate) fn name_prefix(&self) -> &'static str {
        match self {
            Self::Block { .. } | Self::File { .. } | Self::Partitioned { .. } => "disk",
            Self::Character { .. } => "char",
            Self::Pmem { .. } => "pmem",
            Self::Vfio { .. } => "vfio",
            Self::VfioAp { .. } => "ap",
            Self::VhostUserBlk { .. } => "vublk",
            Self::VhostUserFs { .. } => "fs",
            Self::Network { .. } => "net",
            Self::Vsock { .. } => "vsock",
        }
    }

    /// The vsock device of a guest with this context id.
    pub fn vsock(cid: VsockCid) -> Self {
        Self::Vsock { cid: cid.0 }
    }
}
