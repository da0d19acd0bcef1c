//! Hardware addresses of network interfaces.

use std::fmt;
use std::str::FromStr;

/// Not a hardware address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no hardware address; write six bytes, such as 02:00:00:00:00:01")]
pub struct InvalidMac(String);

/// A hardware address of an interface, `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Whether it is that of a group rather than of one interface (IEEE 802, the lowest bit of the first byte).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacAddress({self})")
    }
}

impl FromStr for MacAddress {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let byte = |part: &str| match part.as_bytes() {
            [a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => u8::from_str_radix(part, 16).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let bytes = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        bytes.map(Self).ok_or_else(|| InvalidMac(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_six_pairs_of_digits() {
        let mac: MacAddress = "02:00:00:00:AB:5F".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:00:00:ab:5f");
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "+2:00:00:00:00:01",
            "52-54-00-12-34-56",
            "52:54:0:12:34:56",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_group_is_told_from_one_interface() {
        for (text, multicast) in
            [("52:54:00:12:34:56", false), ("01:00:5e:00:00:01", true), ("ff:ff:ff:ff:ff:ff", true)]
        {
            assert_eq!(text.parse::<MacAddress>().unwrap().is_multicast(), multicast, "{text}");
        }
    }
}
