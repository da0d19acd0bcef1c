//! What the tests that do a thing again and again share: how often, and what this process holds meanwhile.

use std::fs;

/// How often a thing is done: `usually`, or as often as `VC_SOAK` says, which `cargo xtask soak` sets.
///
/// # Panics
/// When that is no number.
pub fn times(usually: usize) -> usize {
    number("VC_SOAK").map_or(usually, |times| usize::try_from(times).expect("VC_SOAK fits"))
}

/// Where a row of random numbers begins: `VC_SOAK_SEED`, or 0.
///
/// # Panics
/// When that is no number.
pub fn seed() -> u64 {
    number("VC_SOAK_SEED").unwrap_or_default()
}

/// The `n`-th number of the row that begins at `seed`, below `end` (splitmix64, by Sebastiano Vigna).
pub fn random(seed: u64, n: u64, end: u64) -> u64 {
    let mut value = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (value ^ (value >> 31)) % end.max(1)
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {value:?}")))
}

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Open files.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Resident memory, in bytes.
    pub resident: usize,
}

impl Held {
    /// What this process holds.
    ///
    /// # Panics
    /// When `/proc` cannot be read.
    pub fn now() -> Self {
        Self::by("self")
    }

    /// What the process holds that has this number.
    ///
    /// # Panics
    /// When it has ended, or is another user's.
    pub fn by_process(pid: u32) -> Self {
        Self::by(&pid.to_string())
    }

    fn by(pid: &str) -> Self {
        let entries = |name| fs::read_dir(format!("/proc/{pid}/{name}")).expect("the process lives").count();
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).expect("the process lives");
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
        let resident = pages.expect("the second figure of statm") * 4096;
        Self { descriptors: entries("fd"), threads: entries("task"), resident }
    }

    /// By how much this is more memory than `before`, in percent.
    pub fn growth_since(self, before: Self) -> f64 {
        (self.resident as f64 / before.resident as f64 - 1.0) * 100.0
    }
}
