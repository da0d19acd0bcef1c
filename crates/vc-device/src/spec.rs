//! What a machine is to get, one type for each kind of device.
//!
//! A spec says everything that the hypervisor has to know, and is checked where it is made. Files
//! travel open, so that what was checked is what is plugged; sockets travel as paths.

mod block;
mod character;
mod network;
mod partitioned;
mod pmem;
mod serial_port;
mod text;
mod vfio;
mod vhost_user;
mod vsock;

use vc_types::DeviceId;

pub use block::{
    Access, AioBackend, BlockBackend, BlockSize, BlockSpec, HostCache, ImageFormat, InvalidBlockSize,
    InvalidSerial, IoPolicy, NativeNeedsDirect, Serial,
};
pub use character::CharacterSpec;
pub use network::{InvalidNetwork, NetworkBackend, NetworkSpec, TapQueue};
pub use partitioned::{InvalidPartitions, PartitionImage, PartitionedSpec};
pub use pmem::{InvalidPmem, PFN_SIGNATURE_OFFSET, PmemFrontend, PmemSpec, has_pfn_signature};
pub use serial_port::{InvalidPortName, PortName, SerialPortBackend, SerialPortSpec};
pub use vfio::{
    ApQueue, InvalidApQueue, InvalidMdev, MdevId, VfioApSpec, VfioFunction, VfioHandle, VfioPciSpec,
};
pub use vhost_user::{FsTag, InvalidFsTag, InvalidQueueSize, QueueSize, VhostUserBlkSpec, VhostUserFsSpec};
pub use vsock::{InvalidGuestCid, VsockBackend, VsockSpec};

/// A device that a machine is to get, of any kind.
#[derive(Clone, Debug)]
pub enum DeviceSpec {
    /// A disk.
    Block(BlockSpec),
    /// A read-only disk made of many images.
    Partitioned(PartitionedSpec),
    /// A character device that the agent makes in the guest; nothing is plugged.
    Character(CharacterSpec),
    /// Persistent memory.
    Pmem(PmemSpec),
    /// A host's PCI function, or a mediated device of that kind.
    VfioPci(VfioPciSpec),
    /// Cryptographic queues of IBM Z.
    VfioAp(VfioApSpec),
    /// A disk that another process serves.
    VhostUserBlk(VhostUserBlkSpec),
    /// A shared directory that another process serves.
    VhostUserFs(VhostUserFsSpec),
    /// The socket device between host and guest.
    Vsock(VsockSpec),
    /// A network interface.
    Network(NetworkSpec),
    /// A serial port.
    SerialPort(SerialPortSpec),
}

impl DeviceSpec {
    /// The device's name within its machine.
    pub fn id(&self) -> &DeviceId {
        match self {
            Self::Block(spec) => &spec.id,
            Self::Partitioned(spec) => spec.id(),
            Self::Character(spec) => &spec.id,
            Self::Pmem(spec) => spec.id(),
            Self::VfioPci(spec) => &spec.id,
            Self::VfioAp(spec) => &spec.id,
            Self::VhostUserBlk(spec) => &spec.id,
            Self::VhostUserFs(spec) => &spec.id,
            Self::Vsock(spec) => spec.id(),
            Self::Network(spec) => spec.id(),
            Self::SerialPort(spec) => &spec.id,
        }
    }
}

macro_rules! from_spec {
    ($($kind:ident($spec:ident)),* $(,)?) => {$(
        impl From<$spec> for DeviceSpec {
            fn from(spec: $spec) -> Self {
                Self::$kind(spec)
            }
        }
    )*};
}

from_spec!(
    Block(BlockSpec),
    Partitioned(PartitionedSpec),
    Character(CharacterSpec),
    Pmem(PmemSpec),
    VfioPci(VfioPciSpec),
    VfioAp(VfioApSpec),
    VhostUserBlk(VhostUserBlkSpec),
    VhostUserFs(VhostUserFsSpec),
    Vsock(VsockSpec),
    Network(NetworkSpec),
    SerialPort(SerialPortSpec),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_tells_its_name() {
        let id: DeviceId = "ap0".parse().unwrap();
        let spec = VfioApSpec { id: id.clone(), mdev: MdevId::NIL, queues: Vec::new() };
        assert_eq!(DeviceSpec::from(spec).id(), &id);
    }
}
