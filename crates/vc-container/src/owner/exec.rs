//! Executing another process in a running container.

use std::collections::BTreeSet;
use std::sync::Weak;

use vc_agent::{Agent, AgentError, Call, ExecProcess, ProcessRef, Signal, SignalTarget};
use vc_hypervisor::Machine;
use vc_types::{Deadline, ExecId};

use super::ghost::Ghost;
use super::process::Process;
use super::record::Exec;
use super::{Owner, Reply, refuse};
use crate::error::{Cause, Leftover, OperationError, Step};
use crate::guest::Guest;
use crate::record::ContainerRecord;
use crate::state::Ask;

impl<M: Machine, A: Agent> Owner<M, A> {
    pub(super) fn exec(&mut self, request: ExecProcess, handle: Weak<()>, reply: Reply<()>) {
        let process = request.reference();
        let generation = self.next_generation();
        let stopping = self.stopping.is_some();
        let haunted = self.is_haunted(&Ghost::Process(process.clone()));
        let known = self.asked(&request.container, Ask::Exec).and_then(|record| {
            record.forget_execs();
            if stopping {
                return Err(Cause::Stopping);
            }
            if haunted {
                return Err(Cause::Busy);
            }
            // An ended one gives its name away.
            if record.execs.get(&request.exec).is_some_and(|known| !known.process.has_ended()) {
                return Err(Cause::ProcessExists);
            }
            let new = Exec { process: Process::new(generation), runs: false, handle, kept: None };
            record.execs.insert(request.exec.clone(), new);
            Ok(record.execs.keys().cloned().collect())
        });
        let known: BTreeSet<ExecId> = match known {
            Ok(known) => known,
            Err(cause) => return refuse(reply, Step::Process(Call::ExecProcess, process), cause),
        };
        let guest = self.guest.clone();
        self.spawn(async move {
            let result = guest.exec_recorded(&request, &known).await;
            move |owner: &mut Self| owner.executed(&process, generation, result, reply)
        });
    }

    /// Gives a handle to a process that there is.
    pub(super) fn hold(&mut self, process: &ProcessRef, handle: Weak<()>, reply: Reply<()>) {
        let record = self.asked(&process.container, Ask::Wait);
        let exec = record.and_then(|record| {
            let exec = process.exec.as_ref().and_then(|exec| record.execs.get_mut(exec));
            exec.ok_or(Cause::NoSuchProcess)
        });
        let held = exec.map(|exec| {
            // Whoever has a handle already keeps it.
            if exec.kept.take().is_some() || exec.handle.strong_count() == 0 {
                exec.handle = handle;
            }
        });
        let step = Step::CheckState(process.container.clone());
        let _ = reply.send(held.map_err(|cause| OperationError::new(step, cause)));
    }

    fn executed(
        &mut self,
        process: &ProcessRef,
        generation: u64,
        result: Result<(), Failed>,
        reply: Reply<()>,
    ) {
        let (record, exec) = (self.containers.get_mut(&process.container), process.exec.as_ref());
        if let (Some(record), Some(name)) = (record, exec)
            && let Some(known) = record.execs.get_mut(name)
            && known.process.generation == generation
        {
            known.runs = result.is_ok();
            if let Err(failed) = &result {
                known.process.ended(process, Err(failed.error.cause.to_string()));
                record.execs.remove(name);
            }
        }
        self.watch_process(process, false);
        if matches!(&result, Err(failed) if failed.ghost) {
            self.look_for_ghost(Ghost::Process(process.clone()));
        }
        let _ = reply.send(result.map_err(|failed| failed.error));
    }
}

/// Why there is no process, and whether there may be one yet.
struct Failed {
    error: OperationError,
    ghost: bool,
}

impl<M: Machine, A: Agent> Guest<M, A> {
    /// Executes a process that is written down first, so that no owner can lose its exit status. `known` are
    /// the processes that are not forgotten.
    async fn exec_recorded(&self, request: &ExecProcess, known: &BTreeSet<ExecId>) -> Result<(), Failed> {
        let noted = self.note_container(&request.container, |container| {
            container.processes.retain(|exec, _| known.contains(exec));
            container.processes.insert(request.exec.clone(), None);
        });
        if let Err(cause) = noted.await {
            return Err(Failed { error: OperationError::new(Step::Record, cause), ghost: false });
        }
        let result = self.exec(request).await;
        if result.is_err() {
            let forget = |container: &mut ContainerRecord| drop(container.processes.remove(&request.exec));
            self.note_past(&request.container, forget).await;
        }
        result
    }

    async fn exec(&self, request: &ExecProcess) -> Result<(), Failed> {
        let process = request.reference();
        let call = self.ask(self.agent.exec(request, self.timing.request()));
        let span = tracing::info_span!("exec", container = %request.container, exec = %request.exec);
        let Err(cause) = self.metrics.step("exec", span, call).await else { return Ok(()) };
        // An agent that knows the name has it from an earlier call of ours that nobody heard the end of.
        let exists = matches!(cause, Cause::Agent(AgentError::ProcessExists { .. }));
        let uncertain = cause.is_uncertain() || exists;
        let mut error = OperationError::new(Step::Process(Call::ExecProcess, process.clone()), cause);
        if !uncertain {
            return Err(Failed { error, ghost: false });
        }
        match self.kill_process(&process, self.timing.undo().deadline()).await {
            Ok(found) => Err(Failed { error, ghost: !found }),
            Err(cause) => {
                let step = Step::Process(Call::SignalProcess, process);
                error.left.push(Leftover { step, cause });
                Err(Failed { error, ghost: true })
            }
        }
    }

    /// Kills a process that may be there; tells whether it was.
    pub(super) async fn kill_process(&self, process: &ProcessRef, deadline: Deadline) -> Result<bool, Cause> {
        let target = SignalTarget::Process(process.clone());
        match self.ask(self.agent.signal(&target, Signal::KILL, deadline)).await {
            Ok(()) | Err(Cause::Agent(AgentError::AlreadyGone) | Cause::MachineGone(_)) => Ok(true),
            Err(Cause::Agent(AgentError::NoSuchProcess { .. } | AgentError::NoSuchContainer { .. })) => {
                Ok(false)
            }
            Err(cause) => Err(cause),
        }
    }
}
