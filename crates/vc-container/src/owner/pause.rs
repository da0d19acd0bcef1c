//! Freezing a container and letting it go on.

use vc_agent::{Agent, AgentError, Call};
use vc_hypervisor::Machine;
use vc_types::ContainerId;

use super::{Owner, Reply, refuse};
use crate::error::{Cause, Leftover, OperationError, Step};
use crate::guest::Guest;
use crate::record::Phase;
use crate::state::Op;

impl<M: Machine, A: Agent> Owner<M, A> {
    pub(super) fn pause(&mut self, id: ContainerId, reply: Reply<()>) {
        if let Some((guest, reply)) = self.begin(&id, Op::Pause, reply) {
            self.spawn(async move {
                let result = guest.pause(&id).await;
                move |owner: &mut Self| owner.changed(&id, Op::Pause, result, reply)
            });
        }
    }

    pub(super) fn resume(&mut self, id: ContainerId, reply: Reply<()>) {
        if let Some((guest, reply)) = self.begin(&id, Op::Resume, reply) {
            self.spawn(async move {
                let result = guest.resume(&id).await;
                move |owner: &mut Self| owner.changed(&id, Op::Resume, result, reply)
            });
        }
    }

    fn begin(&mut self, id: &ContainerId, op: Op, reply: Reply<()>) -> Option<(Guest<M, A>, Reply<()>)> {
        let checked = self.idle(id).and_then(|record| {
            record.state.after(op)?;
            record.busy = true;
            Ok(())
        });
        if let Err(cause) = checked {
            refuse(reply, Step::CheckState(id.clone()), cause);
            return None;
        }
        Some((self.guest.clone(), reply))
    }

    fn changed(&mut self, id: &ContainerId, op: Op, result: Result<(), OperationError>, reply: Reply<()>) {
        let record = self.no_longer_busy(id);
        if result.is_ok() {
            record.go(op);
        }
        let _ = reply.send(result);
    }
}

impl<M: Machine, A: Agent> Guest<M, A> {
    /// Freezes it; if nobody knows whether that was done, it is thawed again.
    async fn pause(&self, id: &ContainerId) -> Result<(), OperationError> {
        let step = |call| Step::Container(call, id.clone());
        self.note_phase(id, Phase::Paused).await?;
        let call = self.ask(self.agent.pause_container(id, self.timing.request()));
        let paused = self.metrics.step("pause", tracing::info_span!("pause", container = %id), call).await;
        let Err(cause) = paused else { return Ok(()) };
        let uncertain = cause.is_uncertain();
        let mut error = OperationError::new(step(Call::PauseContainer), cause);
        if uncertain {
            let thawed = self.ask(self.agent.resume_container(id, self.timing.undo().deadline())).await;
            match thawed {
                // It was not frozen.
                Ok(()) | Err(Cause::Agent(AgentError::Refused { .. }) | Cause::MachineGone(_)) => {}
                Err(cause) => error.left.push(Leftover { step: step(Call::ResumeContainer), cause }),
            }
        }
        self.note_past(id, |known| known.phase = Phase::Running).await;
        Err(error)
    }

    /// Thaws it; if nobody knows whether that was done, it is frozen again.
    async fn resume(&self, id: &ContainerId) -> Result<(), OperationError> {
        let step = |call| Step::Container(call, id.clone());
        self.note_phase(id, Phase::Running).await?;
        let call = self.ask(self.agent.resume_container(id, self.timing.request()));
        let span = tracing::info_span!("resume", container = %id);
        let Err(cause) = self.metrics.step("resume", span, call).await else { return Ok(()) };
        let uncertain = cause.is_uncertain();
        let mut error = OperationError::new(step(Call::ResumeContainer), cause);
        if uncertain {
            let frozen = self.ask(self.agent.pause_container(id, self.timing.undo().deadline())).await;
            match frozen {
                // It was not thawed.
                Ok(()) | Err(Cause::Agent(AgentError::Refused { .. }) | Cause::MachineGone(_)) => {}
                Err(cause) => error.left.push(Leftover { step: step(Call::PauseContainer), cause }),
            }
        }
        self.note_past(id, |known| known.phase = Phase::Paused).await;
        Err(error)
    }

    /// Writes down what the container is to be, so that another owner would have it be that.
    async fn note_phase(&self, id: &ContainerId, phase: Phase) -> Result<(), OperationError> {
        let noted = self.note_container(id, |known| known.phase = phase).await;
        noted.map_err(|cause| OperationError::new(Step::Record, cause))
    }
}
