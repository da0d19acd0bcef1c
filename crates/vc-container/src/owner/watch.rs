//! What is waited for in the background: the ends of processes, want of memory, the guest's health.

use std::time::Duration;

use vc_agent::{Agent, AgentError, Call, ExitStatus, ProcessRef};
use vc_hypervisor::Machine;
use vc_types::{ContainerId, Deadline};

use super::{Owner, Reply, refuse};
use crate::error::{Cause, OperationError, Step};
use crate::record::{ContainerRecord, ExitRecord, Phase};
use crate::state::Ask;

impl<M: Machine, A: Agent> Owner<M, A> {
    pub(super) fn wait(&mut self, process: ProcessRef, reply: Reply<ExitStatus>) {
        let machine_exit = self.machine_exit.clone();
        let record = self.asked(&process.container, Ask::Wait);
        let known = record.and_then(|record| record.process(&process).ok_or(Cause::NoSuchProcess));
        let known = match known {
            Ok(known) => known,
            Err(cause) => return refuse(reply, Step::of(Call::WaitProcess, &process), cause),
        };
        match machine_exit {
            Some(exit) if known.exit().is_none() => {
                let step = Step::of(Call::WaitProcess, &process);
                let _ = reply.send(Err(OperationError::new(step, Cause::MachineGone(exit))));
            }
            _ => {
                known.tell_exit(&process, reply);
                self.watch_process(&process, false);
            }
        }
    }

    /// Has a child task wait for the end of a process that runs, if that is wanted now.
    pub(super) fn watch_process(&mut self, process: &ProcessRef, asked: bool) {
        let Some(record) = self.containers.get_mut(&process.container) else { return };
        let runs = match &process.exec {
            None => record.runs(),
            Some(exec) => record.execs.get(exec).is_some_and(|exec| exec.runs),
        };
        let Some(known) = record.process(process) else { return };
        if runs && known.wants_watch(asked) {
            let (process, generation, guest) = (process.clone(), known.generation, self.guest.clone());
            self.spawn(async move {
                let result = guest.ask(guest.agent.wait(&process)).await;
                let end = result.map_err(|cause| cause.to_string());
                guest.note_past(&process.container, |container| note_end(container, &process, &end)).await;
                move |owner: &mut Self| owner.exited(&process, generation, end)
            });
        }
    }

    fn exited(&mut self, process: &ProcessRef, generation: u64, end: Result<ExitStatus, String>) {
        let record = self.containers.get_mut(&process.container);
        match (record, &process.exec) {
            (Some(record), None) if record.init.generation == generation => {
                record.process_ended(&process.container, end);
            }
            (Some(record), Some(_)) => {
                let known = record.process(process).filter(|known| known.generation == generation);
                if let Some(known) = known {
                    known.ended(process, end);
                }
                record.forget_execs();
            }
            _ => tracing::debug!(%process, "an end was told after the container was deleted"),
        }
    }

    /// Counts the processes that the guest kills for want of memory, for as long as it tells.
    pub(super) fn watch_for_memory(&mut self) {
        let guest = self.guest.clone();
        self.spawn(async move {
            let told = guest.ask(guest.agent.oom_event()).await;
            move |owner: &mut Self| owner.out_of_memory(told)
        });
    }

    fn out_of_memory(&mut self, told: Result<ContainerId, Cause>) {
        match told {
            Ok(id) => {
                tracing::warn!(container = %id, "a process was killed for want of memory");
                if let Some(record) = self.containers.get_mut(&id) {
                    record.oom_kills += 1;
                }
                self.watch_for_memory();
            }
            Err(Cause::MachineGone(_) | Cause::Agent(AgentError::Unimplemented { .. })) => {}
            Err(cause) => tracing::warn!(%cause, "the guest no longer tells when memory runs out"),
        }
    }

    /// Asks the guest now and then whether it answers.
    pub(super) fn watch_health(&mut self) {
        let Some(every) = self.guest.timing.health else { return };
        let guest = self.guest.clone();
        self.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                _ = guest.machine.exited() => {}
            }
            let patience = Deadline::after(every.max(Duration::from_secs(1)));
            let answer = guest.ask(guest.agent.check(patience)).await;
            move |owner: &mut Self| owner.answered(answer)
        });
    }

    fn answered(&mut self, answer: Result<(), Cause>) {
        if matches!(answer, Err(Cause::MachineGone(_))) {
            return;
        }
        if let (Err(cause), false) = (&answer, self.guest_is_silent) {
            tracing::warn!(%cause, "the guest does not answer");
        }
        self.guest_is_silent = answer.is_err();
        self.watch_health();
    }
}

/// Writes down how a process ended. The first word on it is the one that counts.
fn note_end(container: &mut ContainerRecord, process: &ProcessRef, end: &Result<ExitStatus, String>) {
    let end = ExitRecord::from(end);
    match &process.exec {
        None => {
            container.phase = Phase::Stopped;
            container.exit.get_or_insert(end);
        }
        Some(exec) => {
            if let Some(known) = container.processes.get_mut(exec) {
                known.get_or_insert(end);
            }
        }
    }
}
