//! GetIPTables and SetIPTables, by the programs of that name where the guest image has them.

use super::error::NetworkError;
use crate::reaper::{Reaper, wait};
use std::io::{ErrorKind, Read, Seek, Write};
use std::process::{Command, Stdio};
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

async fn run(reaper: &Reaper, program: &'static str, input: &[u8]) -> Result<Vec<u8>, NetworkError> {
    if input.len() > MAX_RULES {
        return Err(NetworkError::Range("the size of the rules"));
    }
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => NetworkError::NoProgram(program),
        _ => NetworkError::Run(program, error),
    };
    // Files, since a pipe could fill while nobody reads it.
    let file = || nix::sys::memfd::memfd_create("iptables", nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
    let file = || file().map(std::fs::File::from).map_err(|errno| NetworkError::Run(program, errno.into()));
    let (mut stdin, mut stdout, mut stderr) = (file()?, file()?, file()?);
    stdin.write_all(input).and_then(|()| stdin.rewind()).map_err(failed)?;
    let share = |file: &std::fs::File| file.try_clone().map(Stdio::from).map_err(failed);
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH).stdin(stdin).stdout(share(&stdout)?).stderr(share(&stderr)?);
    let (pid, mut exit) = reaper.spawn(&mut command, None).map_err(failed)?;
    let status = match tokio::time::timeout(WAIT, wait(&mut exit)).await {
        Ok(status) => status,
        Err(_) => {
            let _ = reaper.signal(pid, nix::sys::signal::Signal::SIGKILL);
            return Err(NetworkError::Program { program, output: "it did not come to an end".to_owned() });
        }
    };
    if status != 0 {
        let output =
            String::from_utf8_lossy(&contents(&mut stderr).map_err(failed)?).chars().take(1000).collect();
        return Err(NetworkError::Program { program, output });
    }
    contents(&mut stdout).map_err(failed)
}

fn contents(file: &mut std::fs::File) -> std::io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    file.rewind()?;
    file.take(MAX_RULES as u64).read_to_end(&mut contents)?;
    Ok(contents)
}
