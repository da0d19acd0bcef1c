//! The address of a PCI function on the host.

use std::fmt;
use std::str::FromStr;

use crate::{InvalidPci, PciSlot};

/// Why a text is no address of a PCI function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBdf {
    /// A text not of the form `domain:bus:device.function`, hexadecimal.
    #[error("{0:?} is no PCI address; write it as domain:bus:device.function, such as 0000:3b:00.0")]
    Malformed(String),
    /// A device or function that no bus has.
    #[error("{text:?} is no PCI address")]
    Slot {
        /// The text.
        text: String,
        /// Which part, and why.
        #[source]
        source: InvalidPci,
    },
}

/// The address of a PCI function on the host, `0000:3b:00.0`: the identity of a passed-through device.
///
/// Domains have at least four digits; those of Intel's VMD have more (`10000:e1:00.0`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    domain: u32,
    bus: u8,
    slot: PciSlot,
}

impl Bdf {
    /// The function at `slot` of bus `bus` in `domain`.
    pub const fn new(domain: u32, bus: u8, slot: PciSlot) -> Self {
        Self { domain, bus, slot }
    }

    /// The PCI domain, which the kernel also calls segment.
    pub const fn domain(self) -> u32 {
        self.domain
    }

    /// The number of the bus within its domain.
    pub const fn bus(self) -> u8 {
        self.bus
    }

    /// Device and function on the bus.
    pub const fn slot(self) -> PciSlot {
        self.slot
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, slot } = self;
        write!(f, "{domain:04x}:{bus:02x}:{:02x}.{}", slot.device(), slot.function())
    }
}

impl fmt::Debug for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bdf({self})")
    }
}

impl FromStr for Bdf {
    type Err = InvalidBdf;

    /// Reads the form of `/sys/bus/pci/devices`; the domain must be there.
    fn from_str(text: &str) -> Result<Self, InvalidBdf> {
        let malformed = || InvalidBdf::Malformed(text.to_owned());
        let hex = |digits: &str| {
            let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten().ok_or_else(malformed)
        };
        let parts: Vec<_> = text.split(':').collect();
        let [domain, bus, slot] = parts[..] else { return Err(malformed()) };
        let function_given = slot.len() == 4 && slot.as_bytes().get(2) == Some(&b'.');
        if !(4..=8).contains(&domain.len()) || bus.len() != 2 || !function_given {
            return Err(malformed());
        }
        // `00001` is not how the kernel writes domain 1: one device, one text.
        if domain.len() > 4 && domain.starts_with('0') {
            return Err(malformed());
        }
        let slot = slot.parse().map_err(|source| InvalidBdf::Slot { text: text.to_owned(), source })?;
        let bus = u8::try_from(hex(bus)?).map_err(|_| malformed())?;
        Ok(Self::new(hex(domain)?, bus, slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_as_sysfs_writes_them() {
        for text in ["0000:00:00.0", "0000:02:10.7", "ffff:ff:1f.0", "10000:e1:00.0"] {
            assert_eq!(text.parse::<Bdf>().unwrap().to_string(), text);
        }
        assert_eq!("0000:0A:00.0".parse::<Bdf>(), "0000:0a:00.0".parse());
        let bad = [
            "",
            "test",
            "02:10.0",
            "0000:0210.0",
            "0000:02:10",
            "0000:02:20.0",
            "0000:02:10.8",
            "0000:02:10.00",
            "0000:2:10.0",
            "000:02:10.0",
            "00000:02:10.0",
            "+000:02:10.0",
            "0000:02:10.0:",
            "0000:02:1 .0",
            "0000:ä:00.0",
            "0000:02:ä.0",
            "f79944e4-5a3d-11e8-99ce-",
            "123456789:00:00.0",
        ];
        for bad in bad {
            assert!(bad.parse::<Bdf>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parse_inverts_display(domain in any::<u32>(), bus in any::<u8>(), device in 0u8..32, function in 0u8..8) {
            let bdf = Bdf::new(domain, bus, PciSlot::new(device, function).unwrap());
            prop_assert_eq!(bdf.to_string().parse(), Ok(bdf));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<Bdf>();
        }
    }
}
