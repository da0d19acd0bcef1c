//! Memory sizes with their unit in the type.

use std::fmt;
use std::str::FromStr;

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSize {
    /// Not a number with an optional unit.
    #[error("{0:?} is no size; write a number with K, M or G, such as 256M")]
    Malformed(String),
    /// Not a whole number of MiB.
    #[error("{0:?} is not a whole number of MiB")]
    NotWhole(String),
    /// Zero, or more than fits.
    #[error("{0:?} is out of range: 1M to 4194303G")]
    Range(String),
}

/// A size in MiB (1,048,576 bytes); never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MiB(u32);

impl MiB {
    /// `mib` MiB, or `None` for 0.
    pub const fn new(mib: u32) -> Option<Self> {
        if mib == 0 { None } else { Some(Self(mib)) }
    }

    /// The number of MiB.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        (self.0 as u64) << 20
    }
}

impl fmt::Display for MiB {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.0)
    }
}

impl fmt::Debug for MiB {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MiB({})", self.0)
    }
}

impl FromStr for MiB {
    type Err = InvalidSize;

    /// Reads a number of bytes with an optional binary unit: `K`, `M`, `G`, each also as `Ki`, `KiB`
    /// and in lower case.
    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let malformed = || InvalidSize::Malformed(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "ki" | "kib" => 10,
            "m" | "mi" | "mib" => 20,
            "g" | "gi" | "gib" => 30,
            _ => return Err(malformed()),
        };
        let number: u128 = number.parse().map_err(|_| malformed())?;
        let bytes = number.checked_mul(1 << shift).ok_or_else(|| InvalidSize::Range(text.to_owned()))?;
        if bytes % (1 << 20) != 0 {
            return Err(InvalidSize::NotWhole(text.to_owned()));
        }
        let mib = u32::try_from(bytes >> 20).ok().and_then(Self::new);
        mib.ok_or_else(|| InvalidSize::Range(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_units() {
        for (text, mib) in [("256M", 256), ("2G", 2048), ("1048576", 1), ("2048k", 2), ("1GiB", 1024)] {
            assert_eq!(text.parse::<MiB>().unwrap().get(), mib, "{text}");
        }
        assert!(matches!("".parse::<MiB>(), Err(InvalidSize::Malformed(_))));
        assert!(matches!("M".parse::<MiB>(), Err(InvalidSize::Malformed(_))));
        assert!(matches!("1.5G".parse::<MiB>(), Err(InvalidSize::Malformed(_))));
        assert!(matches!("-1M".parse::<MiB>(), Err(InvalidSize::Malformed(_))));
        assert!(matches!("1000".parse::<MiB>(), Err(InvalidSize::NotWhole(_))));
        assert!(matches!("0".parse::<MiB>(), Err(InvalidSize::Range(_))));
        assert!(matches!("99999999G".parse::<MiB>(), Err(InvalidSize::Range(_))));
        let most = u128::MAX.to_string() + "G";
        assert!(matches!(most.parse::<MiB>(), Err(InvalidSize::Range(_))));
    }
}
