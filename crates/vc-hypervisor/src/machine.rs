//! The traits: how a machine comes to be, what it can do, how it ends.

use std::fmt;
use std::future::Future;

use vc_device::BlockSpec;
use vc_types::{AgentAddress, Deadline, DeviceId, PciPath};

use crate::{LaunchError, MachineSpec, PlugError, StopError, UnplugError};

/// Launches machines.
pub trait Hypervisor: Send + Sync + 'static {
    /// The machines it launches.
    type Machine: Machine;

    /// Starts a machine and returns once it takes commands; its guest may still be booting.
    ///
    /// # Errors
    /// [`LaunchError`]; then nothing is left of the attempt: no process, no socket, no file.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started.
    fn launch(
        &self,
        spec: &MachineSpec,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Self::Machine, LaunchError>> + Send;
}

/// A running machine. Dropping it ends it at once.
pub trait Machine: Hotplug + 'static {
    /// Where its agent will answer.
    fn agent_address(&self) -> &AgentAddress;

    /// Resolves when the machine has ended, for whatever reason; at once if it already has.
    ///
    /// # Cancel safety
    /// May be dropped and called again at any time, and by several callers.
    fn exited(&self) -> impl Future<Output = MachineExit> + Send;

    /// Ends the machine and all that belongs to it, and waits until nothing is left. Does not ask the
    /// guest: whoever wants it to power off asks its agent first. A machine that has ended is fine.
    ///
    /// # Errors
    /// [`StopError`] when `deadline` passes first.
    ///
    /// # Cancel safety
    /// Once asked, the machine ends even if the future is dropped.
    fn stop(&self, deadline: Deadline) -> impl Future<Output = Result<MachineExit, StopError>> + Send;
}

/// Changes the devices of a running machine.
pub trait Hotplug: Send + Sync {
    /// Plugs a disk. Returns where the guest will find it; the guest may not have seen it yet.
    ///
    /// # Errors
    /// [`PlugError`]; then nothing is left plugged, unless it is [`PlugError::Unknown`].
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the plugging; [`Hotplug::unplug`] is the way back.
    fn plug_block(
        &self,
        spec: &BlockSpec,
        deadline: Deadline,
    ) -> impl Future<Output = Result<PciPath, PlugError>> + Send;

    /// Unplugs a device with the guest's consent and releases its image.
    ///
    /// # Errors
    /// [`UnplugError`]; the device then still holds its port, and unplugging may be tried again.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the unplugging; call again to learn how it went.
    fn unplug(
        &self,
        id: &DeviceId,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), UnplugError>> + Send;
}

/// How a machine ended, with the last words of those who may know why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineExit {
    /// How its process ended.
    pub cause: ExitCause,
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

/// Several lines as one, for messages.
struct OneLine<'a>(&'a str);

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
            stderr_tail: "one\n\n two \n".into(),
            console_tail: "\u{1b}[2Jboot\n".into(),
        };
        let text = exit.to_string();
        assert_eq!(
            text,
            "it was killed by signal 9; it said: one | two; the guest's console ended with: \\u{1b}[2Jboot"
        );
        let silent = MachineExit {
            cause: ExitCause::Exited(1),
            stderr_tail: String::new(),
            console_tail: "\n".into(),
        };
        assert_eq!(silent.to_string(), "it exited with code 1");
    }
}
