//! Sets of CPUs as the kernel writes them: `0-3,7` (cpuset(7), "List format").

use std::collections::BTreeSet;

/// Not a set of CPUs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no set of CPUs; write numbers up to 4095 and ranges of them, as in 0-3,7")]
pub struct InvalidCpuSet(String);

/// More CPUs than any kernel is built for.
const MOST: u32 = 4096;

/// Several sets together.
#[derive(Debug, Default)]
pub(super) struct CpuSet(BTreeSet<u32>);

impl CpuSet {
    pub(super) fn add(&mut self, text: &str) -> Result<(), InvalidCpuSet> {
        let invalid = || InvalidCpuSet(text.to_owned());
        let number = |text: &str| text.parse::<u32>().ok().filter(|cpu| *cpu < MOST).ok_or_else(invalid);
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first.trim())?, number(last.trim())?);
            if first > last {
                return Err(invalid());
            }
            self.0.extend(first..=last);
        }
        Ok(())
    }

    pub(super) fn len(&self) -> u128 {
        self.0.len() as u128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_read_and_nothing_else() {
        for (text, count) in [("", 0), ("0", 1), ("0-3,7", 5), (" 1 , 1-2 \n", 2), ("4095", 1)] {
            let mut set = CpuSet::default();
            set.add(text).unwrap();
            assert_eq!(set.len(), count, "{text:?}");
        }
        for bad in ["a", "3-1", "1-", "-1", "4096", "0-99999999999", "1;2"] {
            assert_eq!(CpuSet::default().add(bad), Err(InvalidCpuSet(bad.to_owned())));
        }
    }
}
