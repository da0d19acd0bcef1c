//! Runs other programs, so that a failure names the whole command and says what it wrote.

use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

/// A program did not do what it was called for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It did not start.
    #[error("could not start `{program}`; is it installed?")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It failed.
    #[error("`{line}` failed: {status}\n{said}")]
    Failed {
        /// The whole command.
        line: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to its standard error.
        said: String,
    },
    /// What it wrote is no text.
    #[error("`{line}` wrote something else than UTF-8")]
    NotText {
        /// The whole command.
        line: String,
    },
}

/// Runs `command` and returns its standard output; its standard error is told only if it fails.
///
/// # Errors
/// [`CommandError::Start`] and [`CommandError::Failed`].
pub fn output(command: &mut Command) -> Result<Vec<u8>, CommandError> {
    let output = command.output().map_err(|source| CommandError::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        return Err(CommandError::Failed { line: line(command), status: output.status, said });
    }
    Ok(output.stdout)
}

/// As [`output`], as text.
///
/// # Errors
/// As [`output`], and [`CommandError::NotText`].
pub fn text(command: &mut Command) -> Result<String, CommandError> {
    let bytes = output(command)?;
    String::from_utf8(bytes).map_err(|_| CommandError::NotText { line: line(command) })
}

/// The program of this name that `PATH` leads to.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// The command as one would type it (without quoting; it is for people).
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let failure = |script: &str| text(Command::new("sh").args(["-c", script])).unwrap_err().to_string();
        assert_eq!(failure("echo no >&2; exit 3"), "`sh -c echo no >&2; exit 3` failed: exit status: 3\nno");
        assert!(failure(r"printf '\377'").contains("UTF-8"));
        let missing = output(&mut Command::new("/nonexistent/program")).unwrap_err();
        assert_eq!(missing.to_string(), "could not start `/nonexistent/program`; is it installed?");
    }
}
