//! Runs other programs, so that a failure names the whole command and says what it wrote.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `command` with its output on ours.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| start_failure(command))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs `command` and returns its standard output; its standard error is told only if it fails.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    output_with_input(command.stdin(Stdio::null()))
}

/// As [`output`], with the standard input that the caller has set.
pub(crate) fn output_with_input(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| start_failure(command))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}\n{}", line(command), output.status, stderr.trim_end());
    }
    Ok(output.stdout)
}

/// As [`output`], as text.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    let bytes = output(command)?;
    String::from_utf8(bytes).with_context(|| format!("`{}` wrote something else than UTF-8", line(command)))
}

/// The program of this name that `PATH` leads to.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    find_in(&std::env::var_os("PATH").unwrap_or_default(), program)
}

/// As [`find`], with a `PATH` of one's own.
pub(crate) fn find_in(path: &OsStr, program: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// The command as one would type it (without quoting; it is for people).
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn start_failure(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    format!("cannot start `{program}`; is it installed?")
}
