//! Changing a container's limits: machine, guest, record, or nothing of it.

use oci_spec::runtime::LinuxResources;
use vc_agent::{Agent, Call};
use vc_hypervisor::Machine;
use vc_types::ContainerId;

use super::{Owner, Reply, refuse};
use crate::error::{Leftover, OperationError, Step};
use crate::guest::Guest;
use crate::guest_spec::guest_resources;
use crate::limits::{merged, reverse};
use crate::sizing::Size;
use crate::state::Ask;
use crate::timing::Budget;

impl<M: Machine, A: Agent> Owner<M, A> {
    pub(super) fn update(&mut self, id: ContainerId, change: LinuxResources, reply: Reply<Size>) {
        let asked = self.asked(&id, Ask::Update).map(drop);
        let before = asked.and_then(|()| {
            let record = self.idle(&id)?;
            record.busy = true;
            Ok(record.resources.clone())
        });
        let before = match before {
            Ok(before) => before,
            Err(cause) => return refuse(reply, Step::CheckState(id), cause),
        };
        let guest = self.guest.clone();
        self.spawn(async move {
            let after = merged(&before, &change);
            let span = tracing::info_span!("update", container = %id);
            let steps = guest.update(&id, &before, &after, change);
            let result = guest.metrics.step("update", span, steps).await;
            move |owner: &mut Self| {
                let record = owner.no_longer_busy(&id);
                if result.is_ok() {
                    record.resources = after;
                }
                let _ = reply.send(result);
            }
        });
    }
}

impl<M: Machine, A: Agent> Guest<M, A> {
    /// Grows the machine for `after`, then has the guest make the change; on an error the guest is told
    /// `before` again. Returns what the machine has.
    async fn update(
        &self,
        id: &ContainerId,
        before: &LinuxResources,
        after: &LinuxResources,
        change: LinuxResources,
    ) -> Result<Size, OperationError> {
        let budget = Budget::of(self.timing.request);
        let claim = self.sizing.claim(self, id, after.clone(), budget).await;
        claim.map_err(|cause| OperationError::new(Step::ResizeMachine, cause))?;
        let back = guest_resources(reverse(before, &change));
        let change = guest_resources(change);
        let updated = self.ask(self.agent.update_container(id, &change, budget.deadline())).await;
        let step = Step::Container(Call::UpdateContainer, id.clone());
        let (failed, cause) = match updated {
            Err(cause) => (step.clone(), cause),
            Ok(()) => match self.note_container(id, |known| known.resources = after.clone()).await {
                Ok(()) => return Ok(self.sizing.now()),
                Err(cause) => (Step::Record, cause),
            },
        };
        // An agent may have made a part of the change before it refused.
        let undo = self.timing.undo();
        let restored = self.ask(self.agent.update_container(id, &back, undo.share(2))).await;
        let mut error = OperationError::new(failed, cause);
        error.left.extend(restored.err().map(|cause| Leftover { step, cause }));
        if let Err(cause) = self.sizing.claim(self, id, before.clone(), undo).await {
            error.left.push(Leftover { step: Step::ResizeMachine, cause });
        }
        Err(error)
    }
}
