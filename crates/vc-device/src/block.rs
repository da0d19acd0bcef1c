//! Block devices: a raw image that a machine gets as a disk.

use std::fmt;
use std::fs::File;
use std::str::FromStr;
use std::sync::Arc;

use vc_types::{DeviceId, HostPath};

/// A disk that a machine is to get.
///
/// The image is an open file, not a path: what was checked is what is plugged, whatever happens to
/// the name meanwhile.
#[derive(Clone, Debug)]
pub struct BlockSpec {
    /// Names the device within its machine.
    pub id: DeviceId,
    /// The raw image.
    pub image: Arc<File>,
    /// What the image was called when it was opened, for messages only.
    pub name: HostPath,
    /// Whether the guest may write. `image` must be open accordingly.
    pub access: Access,
    /// What the guest finds in the disk's `serial` attribute.
    pub serial: Option<Serial>,
}

/// Whether the guest may write to a disk. Decided once, and told to the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads only. Several machines may share the image.
    ReadOnly,
    /// Reads and writes. Nobody else may have the image open.
    ReadWrite,
}

/// Not a serial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no disk serial: 1 to 20 printable ASCII characters, no comma")]
pub struct InvalidSerial(String);

/// A disk's serial: 1 to 20 printable ASCII characters (virtio 1.2, section 5.2.6.1), no comma,
/// which QEMU would take as the end of the option.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Serial(Box<str>);

impl Serial {
    /// The serial as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Serial {
    type Err = InvalidSerial;

    fn from_str(text: &str) -> Result<Self, InvalidSerial> {
        let fits = (1..=20).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_graphic() && b != b',') {
            Ok(Self(text.into()))
        } else {
            Err(InvalidSerial(text.to_owned()))
        }
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_fit_the_device() {
        assert_eq!("layer-0".parse::<Serial>().unwrap().as_str(), "layer-0");
        let long = "x".repeat(21);
        for bad in ["", "a,b", "a b", "ä", &long] {
            assert!(bad.parse::<Serial>().is_err(), "{bad:?}");
        }
    }
}
