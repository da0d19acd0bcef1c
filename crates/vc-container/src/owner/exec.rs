//! Executing another process in a running container.

use std::sync::Weak;

use vc_agent::{Agent, AgentError, Call, ExecProcess, ProcessRef, Signal, SignalTarget};
use vc_hypervisor::Machine;
use vc_types::Deadline;

use super::ghost::Ghost;
use super::process::Process;
use super::record::Exec;
use super::{Owner, Reply, refuse};
use crate::error::{Cause, Leftover, OperationError, Step};
use crate::guest::Guest;
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
            let new = Exec { process: Process::new(generation), runs: false, handle };
            record.execs.insert(request.exec.clone(), new);
            Ok(())
        });
        if let Err(cause) = known {
            return refuse(reply, Step::Process(Call::ExecProcess, process), cause);
        }
        let guest = self.guest.clone();
        self.spawn(async move {
            let result = guest.exec(&request).await;
            move |owner: &mut Self| owner.executed(&process, generation, result, reply)
        });
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
