//! The vocabulary of `vc`: values that are checked once, at their only door, and never again.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use vc_types::{ContainerId, GuestPath, MiB};
//!
//! let id: ContainerId = "web-1".parse()?;
//! let rootfs = GuestPath::new("/run/vc")?.join(id.as_str())?;
//! assert_eq!(rootfs.as_str(), "/run/vc/web-1");
//! assert_eq!("2G".parse::<MiB>()?.bytes(), 2 << 30);
//! assert!("../escape".parse::<ContainerId>().is_err());
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod agent_address;
mod bdf;
mod deadline;
mod device_number;
mod id;
mod mac;
mod path;
mod pci;
mod process;
mod serial_form;
mod size;

pub use agent_address::{AgentAddress, VsockCid, VsockPort};
pub use bdf::{Bdf, InvalidBdf};
pub use deadline::Deadline;
pub use device_number::{DeviceNumber, InvalidDeviceNumber};
pub use id::{ContainerId, DeviceId, ExecId, InvalidId, SandboxId};
pub use mac::{InvalidMac, MacAddress};
pub use path::{GuestPath, HostPath, InvalidPath};
pub use pci::{InvalidPci, PciPath, PciSlot};
pub use process::ProcessIdentity;
pub use size::{InvalidSize, MiB};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
