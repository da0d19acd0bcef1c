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

mod block;
mod root_ports;

pub use block::{Access, BlockSpec, InvalidSerial, Serial};
pub use root_ports::{PortError, RootPort, RootPorts};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
