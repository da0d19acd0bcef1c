//! What the owner knows of one container.

use tokio::sync::watch;
use vc_agent::{Call, ExitStatus};
use vc_hypervisor::MachineExit;
use vc_types::ContainerId;

use super::Reply;
use crate::error::{Cause, OperationError, Step};
use crate::state::{Op, State};
use crate::undo::Undo;

pub(super) struct Record {
    /// Tells this container from an earlier one of the same name.
    pub(super) generation: u64,
    pub(super) state: State,
    pub(super) exit: Option<ExitStatus>,
    /// What a stop has to release. Empty while a child task has it.
    pub(super) held: Undo,
    /// The numbers of its disks, taken until they are released.
    pub(super) disks: Vec<u32>,
    /// Whether a child task is changing its state.
    pub(super) busy: bool,
    waiting: Vec<Reply<ExitStatus>>,
    ended: watch::Sender<bool>,
}

impl Record {
    pub(super) fn creating(generation: u64, disks: Vec<u32>) -> Self {
        Self {
            generation,
            state: State::Creating,
            exit: None,
            held: Undo::default(),
            disks,
            busy: true,
            waiting: Vec::new(),
            ended: watch::channel(false).0,
        }
    }

    /// Becomes true when its process, which runs, has ended; `None` when none runs.
    pub(super) fn end_of_process(&self) -> Option<watch::Receiver<bool>> {
        matches!(self.state, State::Running | State::Paused).then(|| self.ended.subscribe())
    }

    /// Answers now or when its process has ended.
    pub(super) fn tell_exit(&mut self, reply: Reply<ExitStatus>) {
        match self.exit {
            Some(status) => drop(reply.send(Ok(status))),
            None => self.waiting.push(reply),
        }
    }

    /// Changes the state as the table has it. Callers checked before they began; the machine's end may
    /// have come between.
    pub(super) fn go(&mut self, op: Op) {
        match self.state.after(op) {
            Ok(Some(next)) => self.state = next,
            Ok(None) => {}
            Err(refused) => tracing::debug!(%refused, "overtaken by the end of the machine"),
        }
    }

    pub(super) fn holds_nothing(&self) -> bool {
        self.held.is_empty()
    }

    /// Takes back the undo list from a child task.
    pub(super) fn keep(&mut self, undo: Undo) {
        if undo.disks().next().is_none() {
            self.disks.clear();
        }
        self.held = undo;
    }

    pub(super) fn process_ended(&mut self, id: &ContainerId, result: &Result<ExitStatus, Cause>) {
        self.go(Op::End);
        self.ended.send_replace(true);
        self.exit = self.exit.or(result.as_ref().ok().copied());
        for reply in self.waiting.drain(..) {
            let answer = match result {
                Ok(status) => Ok(*status),
                Err(cause) => Err(OperationError::new(
                    Step::Container(Call::WaitProcess, id.clone()),
                    Cause::ExitLost(cause.to_string()),
                )),
            };
            // Whoever waited may be gone.
            let _ = reply.send(answer);
        }
    }

    pub(super) fn machine_ended(&mut self, id: &ContainerId, exit: &MachineExit) {
        self.go(Op::End);
        self.held = Undo::default();
        self.disks.clear();
        self.ended.send_replace(true);
        for reply in self.waiting.drain(..) {
            let step = Step::Container(Call::WaitProcess, id.clone());
            let _ = reply.send(Err(OperationError::new(step, Cause::MachineGone(exit.clone()))));
        }
    }
}
