//! The states of a container, and the one function that says what may follow what.

use std::fmt;

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

/// What can be asked about a container and leaves its state alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    /// Run another process in it.
    Exec,
    /// Send signals to its processes.
    Signal,
    /// Change its limits.
    Update,
    /// Tell what it uses.
    Stats,
    /// Read and write the streams of its processes.
    Streams,
    /// Wait for its processes to end.
    Wait,
}

impl State {
    /// Whether `ask` is for this state.
    ///
    /// Streams can be used as soon as the guest has the container, and read to the end after it; a wait may
    /// begin at any time.
    pub const fn allows(self, ask: Ask) -> bool {
        match ask {
            Ask::Exec => matches!(self, Self::Running),
            Ask::Signal | Ask::Update | Ask::Stats => {
                matches!(self, Self::Ready | Self::Running | Self::Paused)
            }
            Ask::Streams => !matches!(self, Self::Creating),
            Ask::Wait => true,
        }
    }
}

impl Ask {
    /// Everything that can be asked.
    pub const ALL: [Self; 6] =
        [Self::Exec, Self::Signal, Self::Update, Self::Stats, Self::Streams, Self::Wait];
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exec => "exec",
            Self::Signal => "signal",
            Self::Update => "update",
            Self::Stats => "stats",
            Self::Streams => "streams",
            Self::Wait => "wait",
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../../docs/LIFECYCLE.md");

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
        assert!(DOCUMENT.contains(&table), "docs/LIFECYCLE.md should have this table:\n{table}");
    }

    #[test]
    fn the_second_table_is_what_may_be_asked() {
        let mut table = String::from("| |");
        Ask::ALL.iter().for_each(|ask| table += &format!(" {ask} |"));
        table += "\n|---|---|---|---|---|---|---|\n";
        for state in State::ALL {
            table += &format!("| **{state}** |");
            Ask::ALL.iter().for_each(|ask| table += if state.allows(*ask) { " yes |" } else { " – |" });
            table += "\n";
        }
        assert!(DOCUMENT.contains(&table), "docs/LIFECYCLE.md should have this table:\n{table}");
    }
}
