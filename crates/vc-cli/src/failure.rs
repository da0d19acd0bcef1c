//! Errors as the user sees them: one line, and an exit code that says whose fault it was.

use std::error::Error;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use vc_agent::AgentError;
use vc_container::{Cause, Leftover, OperationError};

/// vc itself failed.
pub(crate) const RUNTIME: u8 = 125;
/// The command exists, but cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The command does not exist.
const NOT_FOUND: u8 = 127;

/// Why there is no exit code of the command.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// vc failed at a step.
    pub(crate) fn step(step: impl fmt::Display, source: impl Error) -> Self {
        Self { code: RUNTIME, message: format!("could not {step}: {}", Chain(&source)) }
    }

    /// vc failed, in words of its own.
    pub(crate) fn message(message: impl Into<String>) -> Self {
        Self { code: RUNTIME, message: message.into() }
    }

    /// The same failure with another exit code.
    pub(crate) fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Adds another failure that followed from it.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        self.message += &format!("; {}", other.message);
        self
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// In one line, with the words by which container engines know what they report themselves: Podman
    /// exits with 127 and 126 for these (libpod, `getOCIRuntimeError`).
    pub(crate) fn for_engines(&self) -> String {
        let line = self.line();
        match self.code {
            NOT_FOUND => format!("executable file not found in $PATH: {line}"),
            NOT_EXECUTABLE => format!("permission denied: {line}"),
            _ => line,
        }
    }

    /// One line, whatever a guest or a path put into it.
    pub(crate) fn line(&self) -> String {
        self.message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    /// Adds what could not be released.
    pub(crate) fn with_left(mut self, left: &[Leftover]) -> Self {
        for leftover in left {
            self.message += &format!("; left behind: {}", Chain(leftover));
        }
        self
    }

    /// Prints the message and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        // Where even this cannot be printed, the exit code must do.
        let _ = writeln!(std::io::stderr(), "vc: {}", self.line());
        ExitCode::from(self.code)
    }
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Self {
        let code = match &error.cause {
            Cause::Agent(AgentError::ExecutableNotFound { .. }) => NOT_FOUND,
            Cause::Agent(AgentError::NotExecutable { .. }) => NOT_EXECUTABLE,
            _ => RUNTIME,
        };
        Self { code, message: Chain(&error).to_string() }.with_left(&error.left)
    }
}

/// An error and its causes, joined by colons.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut said = self.0.to_string();
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            // A transparent error repeats its cause.
            if text != said {
                write!(f, ": {text}")?;
            }
            said = text;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vc_container::Step;

    fn failed(cause: impl Into<Cause>) -> Failure {
        let step = Step::Launch;
        OperationError { step, cause: cause.into(), left: Vec::new() }.into()
    }

    #[test]
    fn the_code_tells_whose_fault_it_was() {
        let detail = || "no such command: frobnicate".to_owned();
        assert_eq!(failed(AgentError::ExecutableNotFound { detail: detail() }).code, 127);
        assert_eq!(failed(AgentError::NotExecutable { detail: detail() }).code, 126);
        assert_eq!(failed(AgentError::AlreadyGone).code, 125);
    }

    #[test]
    fn the_message_is_the_chain_without_repetition() {
        let error = std::io::Error::other("disk on fire");
        assert_eq!(failed(error).message, "could not launch the machine: the host refused: disk on fire");
        let gone = failed(AgentError::AlreadyGone);
        assert_eq!(gone.message, "could not launch the machine: the process has already ended");
    }
}
