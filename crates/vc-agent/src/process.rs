//! Processes, signals and exit statuses.

use std::fmt;
use std::str::FromStr;

use vc_types::{ContainerId, ExecId};

/// One process of a container: its init process, or one that was executed in it later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProcessRef {
    /// The container.
    pub container: ContainerId,
    /// The executed process; `None` means the init process.
    pub exec: Option<ExecId>,
}

impl ProcessRef {
    /// The init process of `container`.
    pub fn init(container: &ContainerId) -> Self {
        Self { container: container.clone(), exec: None }
    }
}

impl fmt::Display for ProcessRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exec {
            None => write!(f, "{}", self.container),
            Some(exec) => write!(f, "{}/{exec}", self.container),
        }
    }
}

/// Whom a signal is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SignalTarget {
    /// One process.
    Process(ProcessRef),
    /// Every process of the container.
    All(ContainerId),
}

/// Not a signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no signal; write a name such as TERM or a number from 1 to 64")]
pub struct InvalidSignal(String);

/// A signal by its Linux number, 1 to 64 (signal(7); the numbers are those of x86 and ARM).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(u8);

impl Signal {
    /// SIGKILL.
    pub const KILL: Self = Self(9);
    /// SIGTERM.
    pub const TERM: Self = Self(15);

    /// The signal of number `number`.
    ///
    /// # Errors
    /// [`InvalidSignal`] outside 1 to 64.
    pub fn new(number: i32) -> Result<Self, InvalidSignal> {
        match u8::try_from(number) {
            Ok(n @ 1..=64) => Ok(Self(n)),
            _ => Err(InvalidSignal(number.to_string())),
        }
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({})", self.0)
    }
}

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

impl FromStr for Signal {
    type Err = InvalidSignal;

    fn from_str(text: &str) -> Result<Self, InvalidSignal> {
        if let Ok(number) = text.parse::<i32>() {
            return Self::new(number);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let index = NAMES.iter().position(|known| *known == name);
        let number = index.and_then(|index| i32::try_from(index + 1).ok());
        number.ok_or_else(|| InvalidSignal(text.to_owned())).and_then(Self::new)
    }
}

/// How a process ended: its exit code, or 128 + n when signal n ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExitStatus(pub u8);

impl ExitStatus {
    /// Whether the process ended with code 0.
    pub const fn is_success(self) -> bool {
        self.0 == 0
    }
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("sys", 31), ("64", 64)] {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
        for bad in ["", "0", "65", "-1", "SIG", "SIGNOPE", "300"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad:?}");
        }
    }
}
