//! Device numbers.

use std::fmt;
use std::str::FromStr;

/// The number of a device, or of the (possibly anonymous) device a filesystem stands on: `major:minor`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    major: u32,
    minor: u32,
}

impl DeviceNumber {
    /// The device `major:minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// From `st_dev` or `st_rdev` as `std` gives them.
    pub fn from_raw(raw: u64) -> Self {
        Self { major: libc::major(raw), minor: libc::minor(raw) }
    }

    /// From the kernel's own 32-bit encoding, which the loop driver uses for `lo_device`.
    pub(crate) fn decode(encoded: u64) -> Self {
        let low = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
        Self {
            major: low((encoded & 0xfff00) >> 8),
            minor: low((encoded & 0xff) | ((encoded >> 12) & 0xf_ff00)),
        }
    }

    /// The number that stands for the driver.
    pub const fn major(self) -> u32 {
        self.major
    }

    /// The number that stands for one device of the driver.
    pub const fn minor(self) -> u32 {
        self.minor
    }

    /// Whether no block device stands behind it, as for tmpfs, overlay or a file-backed EROFS mount.
    pub const fn is_anonymous(self) -> bool {
        self.major == 0
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl fmt::Debug for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceNumber({self})")
    }
}

/// A text is not of the form `major:minor`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no device number; write it as major:minor, such as 7:0")]
pub struct InvalidDeviceNumber(String);

impl FromStr for DeviceNumber {
    type Err = InvalidDeviceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text.as_bytes()).ok_or_else(|| InvalidDeviceNumber(text.to_owned()))
    }
}

/// Reads `major:minor`.
pub(crate) fn parse(text: &[u8]) -> Option<DeviceNumber> {
    let colon = text.iter().position(|b| *b == b':')?;
    Some(DeviceNumber::new(number(&text[..colon])?, number(&text[colon + 1..])?))
}

/// Reads plain decimal digits; no sign, no blanks.
pub(crate) fn number(digits: &[u8]) -> Option<u32> {
    decimal(digits).and_then(|number| number.try_into().ok())
}

/// Reads plain decimal digits; no sign, no blanks.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, digit| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_plain_decimal_pairs_are_read() {
        assert_eq!("259:3".parse(), Ok(DeviceNumber::new(259, 3)));
        for bad in ["", ":", "7", "7:", ":7", "7:0:0", "+7:0", "7: 0", "7:4294967296", "0x7:0"] {
            assert!(bad.parse::<DeviceNumber>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn the_kernel_encoding_is_that_of_small_majors(major in 0_u32..4096, minor in 0_u32..(1 << 20)) {
            let device = DeviceNumber::new(major, minor);
            prop_assert_eq!(DeviceNumber::decode(libc::makedev(major, minor)), device);
            prop_assert_eq!(device.to_string().parse(), Ok(device));
        }
    }
}
