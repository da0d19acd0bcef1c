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
    /// How its process ended, or why nobody knows.
    end: Option<Result<ExitStatus, String>>,
    /// What a stop has to release. Empty while a child task has it.
    pub(super) held: Undo,
    /// The numbers of its disks, taken until they are released.
    pub(super) disks: Vec<u32>,
    /// Whether a child task is changing its state.
    pub(super) busy: bool,
    /// Whether a child task waits for the end of its process.
    watched: bool,
    waiting: Vec<Reply<ExitStatus>>,
    ended: watch::Sender<bool>,
}

impl Record {
    pub(super) fn creating(generation: u64, disks: Vec<u32>) -> Self {
        Self {
            generation,
            state: State::Creating,
            end: None,
            held: Undo::default(),
            disks,
            busy: true,
            watched: false,
            waiting: Vec::new(),
            ended: watch::channel(false).0,
        }
    }

    /// Becomes true when its process, which runs, has ended; `None` when none runs.
    pub(super) fn end_of_process(&self) -> Option<watch::Receiver<bool>> {
        matches!(self.state, State::Running | State::Paused).then(|| self.ended.subscribe())
    }

    /// How its process ended, once that is known.
    pub(super) fn exit(&self) -> Option<ExitStatus> {
        self.end.as_ref()?.as_ref().ok().copied()
    }

    /// Answers now or when its process has ended.
    pub(super) fn tell_exit(&mut self, id: &ContainerId, reply: Reply<ExitStatus>) {
        match &self.end {
            // Whoever waited may be gone, here and below.
            Some(end) => drop(reply.send(answer(id, end))),
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

    /// Whether the end of its process is to be waited for now: it runs, somebody wants to know, and
    /// nobody waits yet. Not sooner, since the agent may forget the output with the exit status.
    pub(super) fn wants_watch(&mut self, asked: bool) -> bool {
        let running = matches!(self.state, State::Running | State::Paused);
        let wanted = running && !self.watched && (asked || !self.waiting.is_empty());
        self.watched |= wanted;
        wanted
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

    /// Its process has ended, or will never run; the first word on how is the one that counts.
    pub(super) fn process_ended(&mut self, id: &ContainerId, end: Result<ExitStatus, String>) {
        self.go(Op::End);
        self.ended.send_replace(true);
        let end = self.end.get_or_insert(end);
        for reply in self.waiting.drain(..) {
            let _ = reply.send(answer(id, end));
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

fn answer(id: &ContainerId, end: &Result<ExitStatus, String>) -> Result<ExitStatus, OperationError> {
    let lost = |why: &String| {
        OperationError::new(Step::Container(Call::WaitProcess, id.clone()), Cause::ExitLost(why.clone()))
    };
    end.as_ref().copied().map_err(lost)
}
