//! Where the agent of a machine can be reached.

use std::fmt;

use crate::HostPath;

/// A vsock context id: 3 and up name guests (vsock(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VsockCid(pub u32);

/// A vsock port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VsockPort(pub u32);

impl VsockPort {
    /// The port the agent listens on, by Kata's convention.
    pub const AGENT: Self = Self(1024);

    /// The port of the host to which an agent connects once it serves, if it was told to.
    pub const READY: Self = Self(1027);
}

/// Where the agent of a machine can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentAddress {
    /// The kernel's vsock (`/dev/vhost-vsock` on the host).
    Vsock {
        /// The guest's context id.
        cid: VsockCid,
        /// The agent's port.
        port: VsockPort,
    },
    /// A vsock device in user space: a Unix socket on which `CONNECT port` precedes the stream.
    HybridVsock {
        /// The Unix socket.
        socket: HostPath,
        /// The agent's port.
        port: VsockPort,
    },
    /// A plain Unix socket.
    Unix {
        /// The Unix socket.
        socket: HostPath,
    },
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "vsock {}:{}", cid.0, port.0),
            Self::HybridVsock { socket, port } => write!(f, "{socket} port {}", port.0),
            Self::Unix { socket } => write!(f, "{socket}"),
        }
    }
}
