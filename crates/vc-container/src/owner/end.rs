//! The end of the machine: brought about by a stop of the sandbox, by force, or by itself.

use tokio::sync::oneshot;
use vc_agent::{Agent, AgentError};
use vc_hypervisor::{Machine, MachineExit, StopError};

use super::Owner;
use crate::error::{Cause, Leftover, Step};
use crate::guest::Guest;
use crate::sandbox::end;

impl<M: Machine, A: Agent> Owner<M, A> {
    pub(super) fn stop_sandbox(&mut self, reply: oneshot::Sender<Vec<Leftover>>) {
        if let Some(waiting) = &mut self.stopping {
            return waiting.push(reply);
        }
        self.stopping = Some(vec![reply]);
        let (guest, running) = (self.guest.clone(), self.machine_exit.is_none());
        self.spawn(async move {
            let span = tracing::info_span!("stop sandbox");
            let ended = guest.metrics.step("stop sandbox", span, guest.end(running)).await;
            // The guest may still use it all.
            let left = if ended.is_ok() { guest.end_storage().await } else { Vec::new() };
            move |owner: &mut Self| owner.sandbox_stopped(ended, left)
        });
    }

    fn sandbox_stopped(&mut self, ended: Result<MachineExit, StopError>, mut left: Vec<Leftover>) {
        match ended {
            Ok(exit) => self.machine_ended(exit),
            Err(error) => left.push(Leftover { step: Step::StopMachine, cause: error.into() }),
        }
        if let Err(error) = self.dir.remove() {
            let step = Step::RemoveRuntimeDir(self.dir.path().clone());
            left.push(Leftover { step, cause: error.into() });
        }
        // The record goes last: as long as something is left, another owner may have to see to it.
        if left.is_empty()
            && let Err(error) = self.guest.ledger.remove()
        {
            left.push(Leftover { step: Step::Record, cause: error.into() });
        }
        self.stopped = left.is_empty();
        self.publish();
        // Errors are told to who asked first; who asked later learns what is left.
        let steps: Vec<Step> = left.iter().map(|left| left.step.clone()).collect();
        let again = |step: &Step| Leftover { step: step.clone(), cause: Cause::StillHeld };
        let mut first = Some(left);
        for reply in self.stopping.take().unwrap_or_default() {
            let told = first.take().unwrap_or_else(|| steps.iter().map(again).collect());
            let _ = reply.send(told);
        }
    }

    pub(super) fn kill_machine(&mut self, reply: oneshot::Sender<()>) {
        let guest = self.guest.clone();
        self.spawn(async move {
            // What cannot be ended is told by the stop that follows.
            let _ = guest.machine.stop(guest.timing.undo().deadline()).await;
            let _ = reply.send(());
            |_: &mut Self| {}
        });
    }

    pub(super) fn machine_ended(&mut self, exit: MachineExit) {
        for (id, record) in &mut self.containers {
            record.machine_ended(id, &exit);
        }
        self.guest.devices.clear();
        self.machine_exit.get_or_insert(exit);
    }

    /// Nobody has a handle any more.
    pub(super) async fn abandon(self) {
        let Guest { machine, shares, volumes, timing, .. } = &self.guest;
        let mut left = end(&**machine, shares, self.dir, timing).await;
        // Only of a machine that has ended.
        if left.is_empty() {
            left = volumes.end().await;
        }
        if left.is_empty()
            && let Err(error) = self.guest.ledger.remove()
        {
            left.push(Leftover { step: Step::Record, cause: error.into() });
        }
        for left in left {
            tracing::error!(step = %left.step, cause = %left.cause, "an abandoned sandbox left something");
        }
    }

    /// Gives everything up as it is. What child tasks were at, the next owner finds half done.
    pub(super) async fn leave(mut self) {
        self.work.shutdown().await;
        self.guest.machine.let_go();
        self.guest.shares.let_go();
        self.dir.let_go();
    }
}

impl<M: Machine, A: Agent> Guest<M, A> {
    /// Takes away what the containers had of the host, once the machine has ended.
    async fn end_storage(&self) -> Vec<Leftover> {
        let mut left = self.shares.end(self.timing.undo().deadline()).await;
        left.extend(self.volumes.end().await);
        left
    }

    /// Has the guest end what it has, and ends the machine: what the guest wrote is on its disks once it has answered, and
    /// its kernel has nothing to add.
    async fn end(&self, running: bool) -> Result<MachineExit, StopError> {
        let budget = self.timing.undo();
        if running {
            let asked = tokio::select! {
                asked = self.agent.destroy_sandbox(budget.share(2)) => asked,
                _ = self.machine.exited() => Ok(()),
            };
            match asked {
                // A guest that is gone before its answer was read has done as it was told.
                Ok(()) | Err(AgentError::Disconnected { .. }) => {}
                Err(error) => tracing::warn!(%error, "the guest did not end its sandbox"),
            }
        }
        self.machine.stop(self.timing.undo().deadline()).await
    }
}
