//! The states of a container, and the one function that says what may follow what.

use std::collections::BTreeMap;
use std::fmt;

use vc_agent::ExitStatus;
use vc_hypervisor::MachineExit;
use vc_types::ContainerId;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It is being made.
    Creating,
    /// It exists in the guest; its process waits for the start.
    Ready,
    /// Its process runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process has ended, or never ran and never will.
    Stopped,
}

/// What happens to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Its creation is complete.
    Created,
    /// Its process is let run.
    Start,
    /// Its processes are frozen.
    Pause,
    /// Its processes are thawed.
    Resume,
    /// Its process ends, by itself or by a stop.
    End,
    /// It is forgotten.
    Delete,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Creating, Self::Ready, Self::Running, Self::Paused, Self::Stopped];

    /// The state after `op`, or `None` once the container is forgotten.
    ///
    /// A stopped container cannot be started again: its disks are unplugged. Ending what has ended
    /// is fine, so that a stop may be repeated.
    ///
    /// # Errors
    /// [`Refused`] when `op` is not for this state.
    pub const fn after(self, op: Op) -> Result<Option<Self>, Refused> {
        match (self, op) {
            (Self::Creating, Op::Created) => Ok(Some(Self::Ready)),
            (Self::Ready, Op::Start) | (Self::Paused, Op::Resume) => Ok(Some(Self::Running)),
            (Self::Running, Op::Pause) => Ok(Some(Self::Paused)),
            (_, Op::End) => Ok(Some(Self::Stopped)),
            (Self::Stopped, Op::Delete) => Ok(None),
            (state, op) => Err(Refused { state, op }),
        }
    }
}

impl Op {
    /// Every operation.
    pub const ALL: [Self; 6] =
        [Self::Created, Self::Start, Self::Pause, Self::Resume, Self::End, Self::Delete];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "complete",
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::End => "stop",
            Self::Delete => "delete",
        })
    }
}

/// An operation that is not for the state the container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {op} a container that is {state}")]
pub struct Refused {
    /// The state.
    pub state: State,
    /// The operation.
    pub op: Op,
}

/// A sandbox at one moment.
#[derive(Clone, Debug, Default)]
pub struct SandboxStatus {
    /// Its containers.
    pub containers: BTreeMap<ContainerId, ContainerStatus>,
    /// How its machine ended, if it has.
    pub machine_exit: Option<MachineExit>,
    /// Whether the sandbox is stopped and nothing of it is left.
    pub stopped: bool,
}

/// A container at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Where it is in its life.
    pub state: State,
    /// How its process ended, once it has and said so.
    pub exit: Option<ExitStatus>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_documents_is_the_function() {
        let mut table = String::from(
            "| | complete | start | pause | resume | stop | delete |\n|---|---|---|---|---|---|---|\n",
        );
        for state in State::ALL {
            table += &format!("| **{state}** |");
            for op in Op::ALL {
                table += &match state.after(op) {
                    Ok(Some(next)) => format!(" {next} |"),
                    Ok(None) => " (gone) |".to_owned(),
                    Err(_) => " – |".to_owned(),
                };
            }
            table += "\n";
        }
        let document = include_str!("../../../docs/LIFECYCLE.md");
        assert!(document.contains(&table), "docs/LIFECYCLE.md should have this table:\n{table}");
    }
}
