//! Where a device is on the guest's PCI buses, independent of bus numbers.

use std::fmt;
use std::str::FromStr;

/// Why a text or number is no PCI slot or path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPci {
    /// A device number outside 0..=31 or a function outside 0..=7.
    #[error("PCI device {device:#x} function {function} does not exist: devices are 0-31, functions 0-7")]
    Range {
        /// The device number asked for.
        device: u8,
        /// The function asked for.
        function: u8,
    },
    /// A text not of the form `dd[.f]`, hexadecimal.
    #[error("{0:?} is no PCI slot; write it as two hexadecimal digits, with .function when not 0")]
    Slot(String),
}

/// One device and function on a PCI bus: `02` or `02.3`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciSlot {
    device: u8,
    function: u8,
}

impl PciSlot {
    /// Checks the device (0 to 31) and the function (0 to 7).
    ///
    /// # Errors
    /// [`InvalidPci::Range`] outside those bounds.
    pub const fn new(device: u8, function: u8) -> Result<Self, InvalidPci> {
        if device > 31 || function > 7 {
            return Err(InvalidPci::Range { device, function });
        }
        Ok(Self { device, function })
    }

    /// The device number on the bus, 0 to 31.
    pub const fn device(self) -> u8 {
        self.device
    }

    /// The function of the device, 0 to 7.
    pub const fn function(self) -> u8 {
        self.function
    }
}

impl fmt::Display for PciSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.device)?;
        if self.function != 0 {
            write!(f, ".{}", self.function)?;
        }
        Ok(())
    }
}

impl fmt::Debug for PciSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PciSlot({self})")
    }
}

impl FromStr for PciSlot {
    type Err = InvalidPci;

    fn from_str(text: &str) -> Result<Self, InvalidPci> {
        let malformed = || InvalidPci::Slot(text.to_owned());
        let (device, function) = text.split_once('.').unwrap_or((text, "0"));
        let hex = |digits: &str, most: usize| {
            let plain = (1..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u8::from_str_radix(digits, 16).ok()).flatten().ok_or_else(malformed)
        };
        Self::new(hex(device, 2)?, hex(function, 1)?)
    }
}

/// The slots from the guest's root bus to a device, written `03/00`.
///
/// Firmware numbers buses as it likes; a port's own slot stays. So the agent finds a device by the
/// slots on the way, not by a bus number. The form is that of the agent protocol.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciPath(Vec<PciSlot>);

impl PciPath {
    /// The device in `slot` of the root bus.
    pub fn root(slot: PciSlot) -> Self {
        Self(vec![slot])
    }

    /// The device in `slot` of the bus behind this path's last device.
    #[must_use]
    pub fn child(&self, slot: PciSlot) -> Self {
        let mut slots = self.0.clone();
        slots.push(slot);
        Self(slots)
    }

    /// The slots, root bus first; never empty.
    pub fn slots(&self) -> &[PciSlot] {
        &self.0
    }
}

impl fmt::Display for PciPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, slot) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "/" };
            write!(f, "{separator}{slot}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for PciPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PciPath({self})")
    }
}

impl FromStr for PciPath {
    type Err = InvalidPci;

    fn from_str(text: &str) -> Result<Self, InvalidPci> {
        text.split('/').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn written_form_is_that_of_the_agent_protocol() {
        for text in ["02", "1f", "03/00", "08.1/00", "03/04/05"] {
            assert_eq!(text.parse::<PciPath>().unwrap().to_string(), text);
        }
        for bad in ["", "20", "x", "03/", "/03", "//", "003", "03.8", "03.", "-1", "+1"] {
            assert!(bad.parse::<PciPath>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parse_inverts_display(slots in prop::collection::vec((0u8..32, 0u8..8), 1..5)) {
            let path = PciPath(slots.into_iter().map(|(d, f)| PciSlot::new(d, f).unwrap()).collect());
            prop_assert_eq!(path.to_string().parse::<PciPath>().unwrap(), path);
        }
    }
}
