//! Stopping and deleting: every step is tried, every error told, and what is left can be tried again.

use tokio::sync::watch;
use vc_agent::{Agent, AgentError, Call, ProcessRef, Signal, SignalTarget};
use vc_hypervisor::{Machine, MachineExit, StopError};
use vc_types::{ContainerId, Deadline};

use super::ghost::Ghost;
use super::{Owner, Reply, refuse};
use crate::container::ForcedStop;
use crate::error::{Cause, Leftover, OperationError, Step};
use crate::guest::Guest;
use crate::record::Phase;
use crate::state::{Op, State};
use crate::undo::{Released, Undo};

/// What a release was for, and who waits for it.
pub(super) enum Purpose {
    Stop(Reply<Vec<Leftover>>),
    StopByForce(Reply<ForcedStop>),
    Delete(Reply<()>),
    /// The start failed, and so the container is of no use.
    FailedStart(OperationError, Reply<()>),
}

/// What came of a release.
struct Release {
    /// What the container still holds.
    undo: Undo,
    released: Released,
    /// The end of the machine, if that was necessary.
    escalation: Option<Result<MachineExit, StopError>>,
}

impl<M: Machine, A: Agent> Owner<M, A> {
    pub(super) fn stop(&mut self, id: ContainerId, reply: Reply<Vec<Leftover>>) {
        match self.idle(&id) {
            Ok(_) => self.release(id, Purpose::Stop(reply)),
            Err(cause) => refuse(reply, Step::CheckState(id), cause),
        }
    }

    pub(super) fn stop_by_force(&mut self, id: ContainerId, reply: Reply<ForcedStop>) {
        match self.idle(&id) {
            Ok(_) => self.release(id, Purpose::StopByForce(reply)),
            Err(cause) => refuse(reply, Step::CheckState(id), cause),
        }
    }

    pub(super) fn delete(&mut self, id: ContainerId, reply: Reply<()>) {
        let checked = self.idle(&id).and_then(|record| Ok(record.state.after(Op::Delete).map(drop)?));
        match checked {
            Ok(()) => self.release(id, Purpose::Delete(reply)),
            Err(cause) => refuse(reply, Step::CheckState(id), cause),
        }
    }

    /// Ends what runs and releases what is held, in a child task that has the undo list meanwhile.
    pub(super) fn release(&mut self, id: ContainerId, purpose: Purpose) {
        self.watch_process(&ProcessRef::init(&id), true);
        let record = self.containers.get_mut(&id).expect("checked by the caller");
        record.busy = true;
        let (was, running) = (record.state, record.end_of_process());
        let mut undo = std::mem::take(&mut record.held);
        let guest = self.guest.clone();
        let force = matches!(purpose, Purpose::StopByForce(_));
        self.spawn(async move {
            let span = tracing::info_span!("stop", container = %id);
            let steps = async {
                if was != State::Stopped {
                    guest.kill(&id, running).await;
                }
                undo.run(&guest, guest.timing.undo()).await
            };
            let (Ok(mut released) | Err(mut released)) = guest.metrics.step("stop", span, steps).await;
            let is_deleted = matches!(purpose, Purpose::Delete(_)) && released.left.is_empty();
            let noted = guest.note(|record| match record.container(&id) {
                Some(known) if !is_deleted => known.phase = Phase::Stopped,
                _ => record.forget(&id),
            });
            if let Err(cause) = noted.await {
                released.left.push(Leftover { step: Step::Record, cause });
            }
            let escalation = if force && !released.left.is_empty() {
                Some(guest.machine.stop(guest.timing.undo().deadline()).await)
            } else {
                None
            };
            let release = Release { undo, released, escalation };
            move |owner: &mut Self| owner.released(id, release, purpose)
        });
    }

    fn released(&mut self, id: ContainerId, release: Release, purpose: Purpose) {
        let Release { undo, released: Released { left, ghost }, escalation } = release;
        let record = self.no_longer_busy(&id);
        record.held = undo;
        let why =
            if record.state == State::Ready { "it never ran" } else { "nothing was heard of it in time" };
        record.process_ended(&id, Err(why.to_owned()));
        record.end_execs(&id, |process, exec| exec.ended(process, Err("its container was stopped".into())));
        if ghost {
            self.look_for_ghost(Ghost::Container(id.clone()));
        }
        let mut left_after = Vec::new();
        match escalation {
            Some(Ok(exit)) => self.machine_ended(exit),
            Some(Err(error)) => left_after.push(Leftover { step: Step::StopMachine, cause: error.into() }),
            None => self.drop_what_went_with_the_machine(&id),
        }
        match purpose {
            Purpose::Stop(reply) => drop(reply.send(Ok(left))),
            Purpose::StopByForce(reply) => {
                drop(reply.send(Ok(ForcedStop { escalated: left, left: left_after })));
            }
            Purpose::FailedStart(error, reply) => drop(reply.send(Err(OperationError { left, ..error }))),
            Purpose::Delete(reply) if left.is_empty() => {
                self.containers.remove(&id);
                drop(reply.send(Ok(())));
            }
            Purpose::Delete(reply) => {
                let step = Step::Container(Call::RemoveContainer, id);
                drop(reply.send(Err(OperationError { step, cause: Cause::StillHeld, left })));
            }
        }
    }

    /// The machine may have ended while a child task had the undo list.
    fn drop_what_went_with_the_machine(&mut self, id: &ContainerId) {
        if let (Some(exit), Some(record)) = (&self.machine_exit, self.containers.get_mut(id)) {
            record.machine_ended(id, exit);
        }
    }
}

impl<M: Machine, A: Agent> Guest<M, A> {
    /// Kills every process of the container, and waits for its init process to end if that was
    /// running. Failures are only told to the log: the guest kills what is left when it removes the
    /// container.
    async fn kill(&self, id: &ContainerId, running: Option<watch::Receiver<bool>>) {
        let kill = async {
            let target = SignalTarget::All(id.clone());
            let call = self.agent.signal(&target, Signal::KILL, Deadline::after(self.timing.kill));
            match self.ask(call).await {
                Ok(()) | Err(Cause::Agent(AgentError::AlreadyGone) | Cause::MachineGone(_)) => {}
                Err(cause) => tracing::warn!(container = %id, %cause, "could not kill before the removal"),
            }
            if let Some(mut ended) = running {
                // The owner, which has the sender, outlives its child tasks.
                let _ = ended.wait_for(|ended| *ended).await;
            }
        };
        if tokio::time::timeout(self.timing.kill, kill).await.is_err() {
            tracing::warn!(container = %id, "no exit status in time after SIGKILL");
        }
    }
}
