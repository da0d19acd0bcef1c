//! Devices of a machine as pure values: what is wanted ([`BlockSpec`]) and which port holds it
//! ([`RootPorts`]). Nothing here touches the host.
//!
//! ```
//! use vc_device::RootPorts;
//!
//! let mut ports = RootPorts::new(8).unwrap();
//! let port = ports.take(&"layer0".parse().unwrap()).unwrap();
//! assert_eq!((port.name().as_str(), port.device_path().to_string().as_str()), ("rp0", "08/00"));
//! ```
#![forbid(unsafe_code)]

mod root_ports;
mod spec;

pub use root_ports::{PortError, RootPort, RootPorts};
pub use spec::{
    Access, AioBackend, ApQueue, BlockBackend, BlockSize, BlockSpec, CharacterSpec, DeviceSpec, FsTag,
    HostCache, ImageFormat, InvalidApQueue, InvalidBlockSize, InvalidFsTag, InvalidGuestCid, InvalidMac,
    InvalidMdev, InvalidNetwork, InvalidPmem, InvalidQueueSize, InvalidSerial, IoPolicy, MacAddress, MdevId,
    NativeNeedsDirect, NetworkBackend, NetworkSpec, PFN_SIGNATURE_OFFSET, PmemFrontend, PmemSpec, QueueSize,
    Serial, TapQueue, VfioApSpec, VfioFunction, VfioHandle, VfioPciSpec, VhostUserBlkSpec, VhostUserFsSpec,
    VsockBackend, VsockSpec, has_pfn_signature,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
