//! What is published of a sandbox: at any time, without a wait.

use std::collections::BTreeMap;

use vc_agent::ExitStatus;
use vc_hypervisor::MachineExit;
use vc_types::{ContainerId, ExecId};

use crate::sizing::Size;
use crate::state::State;

/// A sandbox at one moment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SandboxStatus {
    /// Its containers.
    pub containers: BTreeMap<ContainerId, ContainerStatus>,
    /// What the machine has for them, as far as it was changed; none before the first change.
    pub size: Option<Size>,
    /// Whether the guest left a question for its health unanswered, and has answered none since.
    pub guest_is_silent: bool,
    /// How its machine ended, if it has.
    pub machine_exit: Option<MachineExit>,
    /// Whether the sandbox is stopped and nothing of it is left.
    pub stopped: bool,
}

/// A container at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerStatus {
    /// Where it is in its life.
    pub state: State,
    /// How its process ended, once it has and said so.
    pub exit: Option<ExitStatus>,
    /// The processes that were executed in it and are not forgotten, with how they ended.
    pub processes: BTreeMap<ExecId, Option<ExitStatus>>,
    /// How often one of its processes was killed for want of memory.
    pub oom_kills: u64,
}
