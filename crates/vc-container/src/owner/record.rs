//! What the owner knows of one container.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use oci_spec::runtime::LinuxResources;
use tokio::sync::watch;
use vc_agent::{ExitStatus, ProcessRef};
use vc_hypervisor::MachineExit;
use vc_types::{ContainerId, ExecId};

use super::process::Process;
use crate::record::{ContainerRecord, ExitRecord, Phase};
use crate::state::{Op, State};
use crate::undo::Undo;

pub(crate) struct Record {
    pub(super) state: State,
    /// Its own process.
    pub(super) init: Process,
    /// The processes that were executed in it.
    pub(super) execs: BTreeMap<ExecId, Exec>,
    /// Its limits.
    pub(super) resources: LinuxResources,
    pub(super) oom_kills: u64,
    /// What a stop has to release. Empty while a child task has it.
    pub(super) held: Undo,
    /// Whether a child task is changing its state.
    pub(super) busy: bool,
}

/// A process that was executed in a container.
pub(super) struct Exec {
    pub(super) process: Process,
    /// Whether the guest has said that it runs.
    pub(super) runs: bool,
    /// Dead when nobody has a handle to it.
    pub(super) handle: Weak<()>,
    /// Held for somebody who has not come back since its owner died.
    pub(super) kept: Option<Arc<()>>,
}

impl Record {
    pub(super) fn creating(generation: u64, resources: LinuxResources) -> Self {
        Self {
            state: State::Creating,
            init: Process::new(generation),
            execs: BTreeMap::new(),
            resources,
            oom_kills: 0,
            held: Undo::default(),
            busy: true,
        }
    }

    /// A container of an owner that has died.
    pub(crate) fn recovered(record: ContainerRecord, held: Undo) -> Self {
        let state = match record.phase {
            Phase::Creating => State::Creating,
            Phase::Ready => State::Ready,
            Phase::Running => State::Running,
            Phase::Paused => State::Paused,
            Phase::Stopped => State::Stopped,
        };
        let process = |end: Option<ExitRecord>| Process::recovered(end.map(Into::into));
        let kept = |end| {
            let known = Arc::new(());
            Exec { process: process(end), runs: true, handle: Arc::downgrade(&known), kept: Some(known) }
        };
        Self {
            state,
            init: process(record.exit),
            execs: record.processes.into_iter().map(|(exec, end)| (exec, kept(end))).collect(),
            resources: record.resources,
            oom_kills: record.oom_kills,
            held,
            busy: false,
        }
    }

    /// Writes down how far it is.
    pub(crate) fn note(&self, record: &mut ContainerRecord) {
        record.phase = match self.state {
            State::Creating => Phase::Creating,
            State::Ready => Phase::Ready,
            State::Running => Phase::Running,
            State::Paused => Phase::Paused,
            State::Stopped => Phase::Stopped,
        };
        record.exit = self.init.end_record();
        record.oom_kills = self.oom_kills;
    }

    /// The process of that name, its own or an executed one.
    pub(super) fn process(&mut self, process: &ProcessRef) -> Option<&mut Process> {
        match &process.exec {
            None => Some(&mut self.init),
            Some(exec) => self.execs.get_mut(exec).map(|exec| &mut exec.process),
        }
    }

    pub(super) fn runs(&self) -> bool {
        matches!(self.state, State::Running | State::Paused)
    }

    /// Becomes true when its own process, which runs, has ended; `None` when none runs.
    pub(super) fn end_of_process(&self) -> Option<watch::Receiver<bool>> {
        self.runs().then(|| self.init.end())
    }

    /// Changes the state as the table has it. Callers checked before they began; the end of the process or
    /// of the machine may have come between.
    pub(super) fn go(&mut self, op: Op) {
        match self.state.after(op) {
            Ok(Some(next)) => self.state = next,
            Ok(None) => {}
            Err(refused) => tracing::debug!(%refused, "overtaken by the end"),
        }
    }

    /// Its own process has ended, or will never run. Whatever was executed in it ends with it.
    pub(super) fn process_ended(&mut self, id: &ContainerId, end: Result<ExitStatus, String>) {
        self.go(Op::End);
        self.init.ended(&ProcessRef::init(id), end);
    }

    pub(super) fn machine_ended(&mut self, id: &ContainerId, exit: &MachineExit) {
        self.go(Op::End);
        self.held = Undo::default();
        self.init.machine_ended(&ProcessRef::init(id), exit);
        self.end_execs(id, |process, exec| exec.machine_ended(process, exit));
    }

    /// Does the same to every executed process.
    pub(super) fn end_execs(&mut self, id: &ContainerId, end: impl Fn(&ProcessRef, &mut Process)) {
        for (exec, known) in &mut self.execs {
            end(&ProcessRef { container: id.clone(), exec: Some(exec.clone()) }, &mut known.process);
        }
    }

    /// Forgets the executed processes that have ended and that nobody can ask about.
    pub(super) fn forget_execs(&mut self) {
        self.execs.retain(|_, exec| !exec.process.has_ended() || exec.handle.strong_count() > 0);
    }
}
