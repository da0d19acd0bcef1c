//! How a machine ended.

use std::fmt;

/// How a machine ended, with the last words of those who may know why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineExit {
    /// How its process ended.
    pub cause: ExitCause,
    /// What the hypervisor announced before; nothing when it was killed or crashed.
    pub shutdown: Option<ShutdownCause>,
    /// The end of what the hypervisor wrote to its standard error.
    pub stderr_tail: String,
    /// The end of what the guest wrote to its console.
    pub console_tail: String,
}

/// How the machine's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCause {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// The system could not tell.
    Lost,
}

/// Why a hypervisor ended its machine, as it said itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownCause {
    /// The guest powered off.
    GuestShutdown,
    /// The guest asked for a reset, as its kernel also does after a panic; machines are not started again.
    GuestReset,
    /// The guest's kernel panicked, and told so through a device of its own.
    GuestPanic,
    /// The host asked for the end over the control connection.
    HostRequest,
    /// The hypervisor got a signal that asks for the end.
    HostSignal,
    /// Something else.
    Other,
}

impl fmt::Display for ShutdownCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GuestShutdown => "the guest powered off",
            Self::GuestReset => "the guest panicked or asked for a reset",
            Self::GuestPanic => "the guest panicked",
            Self::HostRequest => "the host ended it",
            Self::HostSignal => "a signal asked for its end",
            Self::Other => "it was ended for another reason",
        })
    }
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "it exited with code {code}"),
            Self::Signaled(signal) => write!(f, "it was killed by signal {signal}"),
            Self::Lost => write!(f, "its exit status was lost"),
        }
    }
}

impl fmt::Display for MachineExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cause)?;
        if let Some(shutdown) = self.shutdown {
            write!(f, " ({shutdown})")?;
        }
        for (origin, tail) in
            [("it said", &self.stderr_tail), ("the guest's console ended with", &self.console_tail)]
        {
            if !tail.trim().is_empty() {
                write!(f, "; {origin}: {}", OneLine(tail))?;
            }
        }
        Ok(())
    }
}

/// Several lines as one, for messages; what is not to be printed is escaped.
#[derive(Clone, Copy, Debug)]
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.0.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
            let separator = if index == 0 { "" } else { " | " };
            write!(f, "{separator}{}", line.escape_debug())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_reads_as_one_line() {
        let exit = MachineExit {
            cause: ExitCause::Signaled(9),
            shutdown: None,
            stderr_tail: "one\n\n two \n".into(),
            console_tail: "\u{1b}[2Jboot\n".into(),
        };
        let text = exit.to_string();
        assert_eq!(
            text,
            "it was killed by signal 9; it said: one | two; the guest's console ended with: \\u{1b}[2Jboot"
        );
        let silent = MachineExit {
            cause: ExitCause::Exited(0),
            shutdown: Some(ShutdownCause::GuestReset),
            stderr_tail: String::new(),
            console_tail: "\n".into(),
        };
        assert_eq!(silent.to_string(), "it exited with code 0 (the guest panicked or asked for a reset)");
    }
}
