//! Major and minor number of a device node.

use std::fmt;
use std::str::FromStr;

/// Why numbers or a text are no device number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDeviceNumber {
    /// More bits than the kernel has for them.
    #[error("device {major}:{minor} does not exist: majors end at 4095, minors at 1048575")]
    Range {
        /// The major number asked for.
        major: u32,
        /// The minor number asked for.
        minor: u32,
    },
    /// A number of stat(2) with more bits than the kernel uses.
    #[error("{0:#x} is no device number of stat(2): it has more than 32 bits")]
    Stat(u64),
    /// A text not of the form `major:minor`, decimal.
    #[error("{0:?} is no device number; write it as major:minor, such as 259:3")]
    Malformed(String),
}

/// Major and minor number of a device, as in `259:3`.
///
/// The kernel has 12 bits for the major and 20 for the minor (`include/linux/kdev_t.h`, `MINORBITS`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    major: u32,
    minor: u32,
}

impl DeviceNumber {
    /// Checks the major (at most 4095) and the minor (at most 1048575).
    ///
    /// # Errors
    /// [`InvalidDeviceNumber::Range`] outside those bounds.
    pub const fn new(major: u32, minor: u32) -> Result<Self, InvalidDeviceNumber> {
        if major > 0xfff || minor > 0xf_ffff {
            return Err(InvalidDeviceNumber::Range { major, minor });
        }
        Ok(Self { major, minor })
    }

    /// Reads `st_dev` or `st_rdev` of stat(2).
    ///
    /// The low byte of the minor stands in bits 0-7, the rest of it from bit 20 on; the major has bits
    /// 8-19 (`new_encode_dev` in `include/linux/kdev_t.h`).
    ///
    /// # Errors
    /// [`InvalidDeviceNumber::Stat`] when higher bits are set, which no kernel does.
    pub fn from_stat(dev: u64) -> Result<Self, InvalidDeviceNumber> {
        let dev = u32::try_from(dev).map_err(|_| InvalidDeviceNumber::Stat(dev))?;
        Self::new((dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xf_ff00))
    }

    /// The number as stat(2) has it; the inverse of [`DeviceNumber::from_stat`].
    pub const fn to_stat(self) -> u64 {
        let (major, minor) = (self.major as u64, self.minor as u64);
        (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
    }

    /// The major number: which driver.
    pub const fn major(self) -> u32 {
        self.major
    }

    /// The minor number: which device of that driver.
    pub const fn minor(self) -> u32 {
        self.minor
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

impl FromStr for DeviceNumber {
    type Err = InvalidDeviceNumber;

    fn from_str(text: &str) -> Result<Self, InvalidDeviceNumber> {
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        let parts = text.split_once(':').and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
        let (major, minor) = parts.ok_or_else(|| InvalidDeviceNumber::Malformed(text.to_owned()))?;
        Self::new(major, minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn l26_minors_above_255_are_read_as_the_kernel_writes_them() {
        // 259:300, an NVMe partition: the seed read major 4355, minor 44.
        let number = DeviceNumber::from_stat(0x0011_032c).unwrap();
        assert_eq!((number.major(), number.minor()), (259, 300));
        let null = std::fs::metadata("/dev/null").unwrap().rdev();
        assert_eq!(DeviceNumber::from_stat(null).unwrap().to_string(), "1:3");
    }

    #[test]
    fn numbers_that_the_kernel_does_not_have_are_refused() {
        assert!(DeviceNumber::new(4095, 1_048_575).is_ok());
        assert!(DeviceNumber::new(4096, 0).is_err());
        assert!(DeviceNumber::new(0, 1 << 20).is_err());
        assert!(DeviceNumber::from_stat(u64::MAX).is_err());
        for bad in ["", "1", "1:", ":1", "+1:0", "1:-1", "1:2:3", "4294967296:0", "a:b", " 1:2"] {
            assert!(bad.parse::<DeviceNumber>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn reading_inverts_writing(major in 0u32..4096, minor in 0u32..1 << 20) {
            let number = DeviceNumber::new(major, minor).unwrap();
            prop_assert_eq!(DeviceNumber::from_stat(number.to_stat()), Ok(number));
            prop_assert_eq!(number.to_string().parse(), Ok(number));
        }

        #[test]
        fn no_stat_value_is_misread(dev in any::<u64>()) {
            if let Ok(number) = DeviceNumber::from_stat(dev) {
                prop_assert_eq!(number.to_stat(), dev);
            }
        }
    }
}
