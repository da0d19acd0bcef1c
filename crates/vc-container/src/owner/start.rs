//! Starting a container. One that cannot be started is of no use, and is stopped.

use vc_agent::{Agent, Call};
use vc_hypervisor::Machine;
use vc_types::ContainerId;

use super::stop::Purpose;
use super::{Owner, Reply, refuse};
use crate::error::{Cause, OperationError, Step};
use crate::record::Phase;
use crate::state::Op;

impl<M: Machine, A: Agent> Owner<M, A> {
    pub(super) fn start(&mut self, id: ContainerId, reply: Reply<()>) {
        let checked = self.idle(&id).and_then(|record| {
            record.state.after(Op::Start)?;
            record.busy = true;
            Ok(())
        });
        if let Err(cause) = checked {
            return refuse(reply, Step::CheckState(id), cause);
        }
        let guest = self.guest.clone();
        self.spawn(async move {
            // Before the call: when its answer never comes, the process may run all the same.
            let noted = guest.note_container(&id, |known| known.phase = Phase::Running).await;
            let result = match noted {
                Err(cause) => Err((Step::Record, cause)),
                Ok(()) => {
                    let call = guest.ask(guest.agent.start_container(&id, guest.timing.request()));
                    let span = tracing::info_span!("start container", container = %id);
                    let started = guest.metrics.step("start container", span, call).await;
                    started.map_err(|cause| (Step::Container(Call::StartContainer, id.clone()), cause))
                }
            };
            move |owner: &mut Self| owner.started(id, result, reply)
        });
    }

    fn started(&mut self, id: ContainerId, result: Result<(), (Step, Cause)>, reply: Reply<()>) {
        if let Err((step, cause)) = result {
            let error = OperationError::new(step, cause);
            return self.release(id, Purpose::FailedStart(error, reply));
        }
        self.no_longer_busy(&id).go(Op::Start);
        self.watch_process(&vc_agent::ProcessRef::init(&id), false);
        let _ = reply.send(Ok(()));
    }
}
