//! Which process it is.

use serde::{Deserialize, Serialize};

/// What tells a process from any other of this host, until the next boot: a number alone may be another's by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessIdentity {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the boot.
    pub started: u64,
}

impl ProcessIdentity {
    /// The process that has this number now (proc_pid_stat(5), `starttime`); `None` when none has, or it has ended
    /// and nobody has asked how.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, started: start_time(&stat)? })
    }
}

fn start_time(stat: &str) -> Option<u64> {
    // The name stands in parentheses, and may have any character. The field is the 20th behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    // A zombie has ended.
    fields.next().filter(|state| !matches!(*state, "Z" | "X"))?;
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_confuses_nothing_and_a_zombie_is_none() {
        let stat = |name: &str, state: &str| {
            format!("7 ({name}) {state} 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 100 200 300")
        };
        assert_eq!(start_time(&stat("a) Z 1 (b", "S")), Some(4711));
        assert_eq!(start_time(&stat("sleep", "Z")), None);
        assert_eq!(start_time("7 (sleep"), None);
        let own = ProcessIdentity::of(std::process::id()).unwrap();
        assert_eq!(ProcessIdentity::of(own.pid), Some(own));
        assert_eq!(ProcessIdentity::of(0), None);
    }
}
