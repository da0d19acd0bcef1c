//! Serial ports: a stream of bytes between host and guest, a character device at each end (virtio 1.2, section 5.3).

use std::fmt;
use std::fs::File;
use std::str::FromStr;
use std::sync::Arc;

use vc_types::DeviceId;

use super::text::is_option_value;

/// A serial port. The guest finds a character device `/dev/vportNp1`, and its name in
/// `/sys/class/virtio-ports/vportNp1/name`.
///
/// Only bytes pass: what a terminal or a serial line of the host knows beyond them, such as its speed, the guest
/// can neither see nor set.
#[derive(Clone, Debug)]
pub struct SerialPortSpec {
    /// Names the device within its machine.
    pub id: DeviceId,
    /// What the guest knows the port by.
    pub name: PortName,
    /// What is at its other end.
    pub backend: SerialPortBackend,
}

/// What is at the host's end of a serial port.
#[derive(Clone, Debug)]
pub enum SerialPortBackend {
    /// A connected stream socket.
    Socket(Arc<File>),
    /// A character device of the host, such as a serial line or a pseudo-terminal, open for reading and writing.
    /// A terminal is set to raw bytes and 115,200 baud.
    Device(Arc<File>),
}

/// Not the name of a port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of a port: 1 to 64 printable ASCII characters, no comma")]
pub struct InvalidPortName(String);

/// The name of a serial port: 1 to 64 printable ASCII characters, no comma. By custom it is a reversed domain name
/// such as `org.qemu.guest_agent.0`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PortName(Box<str>);

impl PortName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PortName {
    type Err = InvalidPortName;

    fn from_str(text: &str) -> Result<Self, InvalidPortName> {
        if is_option_value(text, 64) { Ok(Self(text.into())) } else { Err(InvalidPortName(text.to_owned())) }
    }
}

impl fmt::Debug for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortName({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_device() {
        assert_eq!("org.vc.port".parse::<PortName>().unwrap().as_str(), "org.vc.port");
        let long = "x".repeat(65);
        for bad in ["", "a,b", "a b", "ä", "a\0", &long] {
            assert!(bad.parse::<PortName>().is_err(), "{bad:?}");
        }
    }
}
