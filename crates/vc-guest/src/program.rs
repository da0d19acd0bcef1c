//! A program of the guest image, run to its end.

use crate::reaper::{ExitStatus, Reaper, wait};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How a program ended, and what it wrote.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Why there is no outcome.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// It cannot be started, or its streams cannot be used.
    #[error("cannot run the program")]
    Run(#[from] std::io::Error),
    /// It was killed after its time.
    #[error("the program did not come to an end in {} seconds", .0.as_secs())]
    Late(Duration),
}

/// Runs `command` with `input` as its standard input; returns at most `most` bytes of each of its outputs.
pub(crate) async fn run(
    reaper: &Reaper,
    command: &mut Command,
    input: &[u8],
    most: u64,
    patience: Duration,
) -> Result<Outcome, ProgramError> {
    // Files, since a pipe could fill while nobody reads it.
    let file =
        || memfd_create("program", MFdFlags::MFD_CLOEXEC).map(File::from).map_err(std::io::Error::from);
    let (mut stdin, stdout, stderr) = (file()?, file()?, file()?);
    stdin.write_all(input)?;
    stdin.rewind()?;
    command.stdin(stdin).stdout(Stdio::from(stdout.try_clone()?)).stderr(Stdio::from(stderr.try_clone()?));
    let (pid, mut exit) = reaper.spawn(command, None)?;
    let Ok(status) = tokio::time::timeout(patience, wait(&mut exit)).await else {
        let _ = reaper.signal(pid, libc::SIGKILL);
        return Err(ProgramError::Late(patience));
    };
    let written = |mut file: File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.take(most).read_to_end(&mut bytes)).map(|_| bytes)
    };
    Ok(Outcome { status, stdout: written(stdout)?, stderr: written(stderr)? })
}
