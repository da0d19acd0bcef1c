//! GetIPTables and SetIPTables, by the programs of that name where the guest image has them.

use super::error::NetworkError;
use crate::program::{self, ProgramError};
use crate::reaper::Reaper;
use std::io::ErrorKind;
use std::process::Command;
use std::time::Duration;

/// How long a program may take.
const WAIT: Duration = Duration::from_secs(30);

/// The most bytes of rules taken or given.
const MAX_RULES: usize = 2 << 20;

/// Where programs of a guest image are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The rules, as iptables-save(8) writes them.
pub(crate) async fn save(reaper: &Reaper, is_ipv6: bool) -> Result<Vec<u8>, NetworkError> {
    run(reaper, if is_ipv6 { "ip6tables-save" } else { "iptables-save" }, &[]).await
}

/// Replaces the rules by `rules`, as iptables-restore(8) reads them.
pub(crate) async fn restore(reaper: &Reaper, is_ipv6: bool, rules: &[u8]) -> Result<Vec<u8>, NetworkError> {
    run(reaper, if is_ipv6 { "ip6tables-restore" } else { "iptables-restore" }, rules).await
}

async fn run(reaper: &Reaper, name: &'static str, input: &[u8]) -> Result<Vec<u8>, NetworkError> {
    if input.len() > MAX_RULES {
        return Err(NetworkError::Range("the size of the rules"));
    }
    let mut command = Command::new(name);
    command.env_clear().env("PATH", PATH);
    let outcome = program::run(reaper, &mut command, input, MAX_RULES as u64, WAIT).await;
    let outcome = outcome.map_err(|error| match error {
        ProgramError::Run(error) if error.kind() == ErrorKind::NotFound => NetworkError::NoProgram(name),
        ProgramError::Run(error) => NetworkError::Run(name, error),
        late @ ProgramError::Late(_) => NetworkError::Program { program: name, output: late.to_string() },
    })?;
    if outcome.status != 0 {
        let output = String::from_utf8_lossy(&outcome.stderr).chars().take(1000).collect();
        return Err(NetworkError::Program { program: name, output });
    }
    Ok(outcome.stdout)
}
