//! What the owner knows of one process: how it ended, and who wants to know.

use tokio::sync::watch;
use vc_agent::{Call, ExitStatus, ProcessRef};
use vc_hypervisor::MachineExit;

use super::Reply;
use crate::error::{Cause, OperationError, Step};
use crate::record::ExitRecord;

pub(super) struct Process {
    /// Tells it from an earlier one of the same name.
    pub(super) generation: u64,
    /// How it ended, or why nobody knows.
    end: Option<Result<ExitStatus, String>>,
    /// Whether a child task waits for its end.
    watched: bool,
    waiting: Vec<Reply<ExitStatus>>,
    ended: watch::Sender<bool>,
}

impl Process {
    pub(super) fn new(generation: u64) -> Self {
        Self { generation, end: None, watched: false, waiting: Vec::new(), ended: watch::channel(false).0 }
    }

    /// A process of an owner that has died.
    pub(super) fn recovered(end: Option<Result<ExitStatus, String>>) -> Self {
        let ended = watch::channel(end.is_some()).0;
        Self { end, ended, ..Self::new(0) }
    }

    /// How it ended, to be written down.
    pub(super) fn end_record(&self) -> Option<ExitRecord> {
        self.end.as_ref().map(ExitRecord::from)
    }

    /// How it ended, once that is known.
    pub(super) fn exit(&self) -> Option<ExitStatus> {
        self.end.as_ref()?.as_ref().ok().copied()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Becomes true when it has ended.
    pub(super) fn end(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// Answers now or when it has ended.
    pub(super) fn tell_exit(&mut self, process: &ProcessRef, reply: Reply<ExitStatus>) {
        match &self.end {
            // Whoever waited may be gone, here and below.
            Some(end) => drop(reply.send(answer(process, end))),
            None => self.waiting.push(reply),
        }
    }

    /// Whether its end is to be waited for now: somebody wants to know, and nobody waits yet. Not sooner,
    /// since the agent may forget the output with the exit status.
    pub(super) fn wants_watch(&mut self, asked: bool) -> bool {
        let wanted = self.end.is_none() && !self.watched && (asked || !self.waiting.is_empty());
        self.watched |= wanted;
        wanted
    }

    /// It has ended, or will never run; the first word on how is the one that counts.
    pub(super) fn ended(&mut self, process: &ProcessRef, end: Result<ExitStatus, String>) {
        let end = &*self.end.get_or_insert(end);
        self.ended.send_replace(true);
        for reply in self.waiting.drain(..) {
            let _ = reply.send(answer(process, end));
        }
    }

    /// It ended with the machine.
    pub(super) fn machine_ended(&mut self, process: &ProcessRef, exit: &MachineExit) {
        for reply in self.waiting.drain(..) {
            let step = Step::of(Call::WaitProcess, process);
            let _ = reply.send(Err(OperationError::new(step, Cause::MachineGone(exit.clone()))));
        }
        self.ended(process, Err("the machine ended first".to_owned()));
    }
}

fn answer(process: &ProcessRef, end: &Result<ExitStatus, String>) -> Result<ExitStatus, OperationError> {
    let lost = |why: &String| {
        OperationError::new(Step::of(Call::WaitProcess, process), Cause::ExitLost(why.clone()))
    };
    end.as_ref().copied().map_err(lost)
}
