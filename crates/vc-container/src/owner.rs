//! The one task that owns a sandbox: takes requests, starts child tasks, and alone changes the state.
//!
//! Each operation is a file with two halves: what the owner does when it is asked, and what it concludes
//! when the child task that did the work has ended. Between the two the owner serves others.

mod calls;
mod create;
mod end;
mod exec;
mod ghost;
mod pause;
mod process;
mod record;
mod request;
mod start;
mod stop;
mod update;
mod volumes;
mod watch;

use std::collections::BTreeMap;

use futures::FutureExt as _;
use tokio::sync::{mpsc, oneshot, watch as channel};
use tokio::task::JoinSet;
use tracing::Instrument;
use vc_agent::Agent;
use vc_hypervisor::{Machine, MachineExit};
use vc_types::ContainerId;

use crate::ahead::Ahead;
use crate::error::{Cause, Leftover, OperationError, Step};
use crate::guest::Guest;
use crate::runtime_dir::RuntimeDir;
use crate::state::Ask;
use crate::status::{ContainerStatus, SandboxStatus};

use ghost::Ghost;
pub(crate) use record::Record;
pub(crate) use request::{Reply, Request};

/// What a child task has the owner do when it has ended.
type Conclusion<M, A> = Box<dyn FnOnce(&mut Owner<M, A>) + Send>;

pub(crate) struct Owner<M, A> {
    guest: Guest<M, A>,
    containers: BTreeMap<ContainerId, Record>,
    /// What was done for a container that is still to be created.
    ahead: Option<Ahead>,
    work: JoinSet<Conclusion<M, A>>,
    /// How many processes were made known; tells one from an earlier one of the same name.
    generation: u64,
    /// Who waits for the sandbox to be stopped; some while it is being stopped.
    stopping: Option<Vec<oneshot::Sender<Vec<Leftover>>>>,
    stopped: bool,
    /// What is being removed from the guest although nobody has asked for it any more.
    haunted: Vec<Ghost>,
    guest_is_silent: bool,
    machine_exit: Option<MachineExit>,
    publisher: channel::Sender<SandboxStatus>,
    dir: RuntimeDir,
}

impl<M: Machine, A: Agent> Owner<M, A> {
    pub(crate) fn new(
        guest: Guest<M, A>,
        dir: RuntimeDir,
        (containers, ahead): (BTreeMap<ContainerId, Record>, Option<Ahead>),
        publisher: channel::Sender<SandboxStatus>,
    ) -> Self {
        Self {
            guest,
            containers,
            ahead,
            work: JoinSet::new(),
            // Those of recovered processes are 0.
            generation: 0,
            stopping: None,
            stopped: false,
            haunted: Vec::new(),
            guest_is_silent: false,
            machine_exit: None,
            publisher,
            dir,
        }
    }

    /// Serves until the sandbox is stopped, or nobody holds a handle any more.
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut size = self.guest.sizing.watch();
        self.watch_for_memory();
        self.watch_health();
        while !self.stopped {
            tokio::select! {
                request = requests.recv() => match request {
                    None => break,
                    Some(Request::Leave { reply }) if self.guest.ledger.is_kept() => {
                        self.leave().await;
                        drop(reply);
                        return;
                    }
                    Some(Request::Leave { .. }) => break,
                    Some(request) => self.take(request),
                },
                Some(done) = self.work.join_next() => {
                    let conclude = done.expect("child tasks neither panic nor are aborted");
                    conclude(&mut self);
                }
                exit = self.guest.machine.exited(), if self.machine_exit.is_none() => self.machine_ended(exit),
                Ok(()) = size.changed() => {}
            }
            self.publish();
        }
        self.work.shutdown().await;
        if !self.stopped {
            self.abandon().await;
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Create { id, spec, reply } => self.create(id, spec, reply),
            Request::Start { id, reply } => self.start(id, reply),
            Request::Exec { request, handle, reply } => self.exec(*request, handle, reply),
            Request::Hold { process, handle, reply } => self.hold(&process, handle, reply),
            Request::Wait { process, reply } => self.wait(process, reply),
            Request::Pause { id, reply } => self.pause(id, reply),
            Request::Resume { id, reply } => self.resume(id, reply),
            Request::Update { id, resources, reply } => self.update(id, *resources, reply),
            Request::Stop { id, reply } => self.stop(id, reply),
            Request::StopByForce { id, reply } => self.stop_by_force(id, reply),
            Request::Delete { id, reply } => self.delete(id, reply),
            Request::StopSandbox { reply } => self.stop_sandbox(reply),
            Request::KillMachine { reply } => self.kill_machine(reply),
            Request::MachineStats { reply } => self.machine_stats(reply),
            call => self.pass_on(call),
        }
    }

    /// Starts a child task.
    fn spawn<C>(&mut self, work: impl Future<Output = C> + Send + 'static)
    where
        C: FnOnce(&mut Self) + Send + 'static,
    {
        // Below the span of the sandbox.
        self.work.spawn(concluding(work).in_current_span());
    }

    fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// The container, if no other operation on it is under way.
    fn idle(&mut self, id: &ContainerId) -> Result<&mut Record, Cause> {
        match self.containers.get_mut(id) {
            _ if self.stopping.is_some() => Err(Cause::Stopping),
            None => Err(Cause::NoSuchContainer),
            Some(record) if record.busy => Err(Cause::Busy),
            Some(record) => Ok(record),
        }
    }

    /// The container, if `ask` is for its state.
    fn asked(&mut self, id: &ContainerId, ask: Ask) -> Result<&mut Record, Cause> {
        match self.containers.get_mut(id) {
            None => Err(Cause::NoSuchContainer),
            Some(record) if !record.state.allows(ask) => Err(Cause::NotNow(record.state)),
            Some(record) => Ok(record),
        }
    }

    /// The container whose operation ends now.
    fn no_longer_busy(&mut self, id: &ContainerId) -> &mut Record {
        let record = self.containers.get_mut(id).expect("a busy container is not forgotten");
        record.busy = false;
        record
    }

    pub(crate) fn publish(&self) {
        let status = |record: &Record| ContainerStatus {
            state: record.state,
            exit: record.init.exit(),
            processes: record.execs.iter().map(|(id, exec)| (id.clone(), exec.process.exit())).collect(),
            oom_kills: record.oom_kills,
        };
        let containers = self.containers.iter().map(|(id, record)| (id.clone(), status(record)));
        let now = SandboxStatus {
            containers: containers.collect(),
            size: *self.guest.sizing.watch().borrow(),
            guest_is_silent: self.guest_is_silent,
            machine_exit: self.machine_exit.clone(),
            stopped: self.stopped,
        };
        self.publisher.send_replace(now);
    }
}

/// The same work, with a conclusion as the owner has them.
// Not an async function: that would hold the work twice, as what it was given and as what it waits for.
fn concluding<M, A, C>(work: impl Future<Output = C>) -> impl Future<Output = Conclusion<M, A>>
where
    C: FnOnce(&mut Owner<M, A>) + Send + 'static,
{
    work.map(|conclusion| -> Conclusion<M, A> { Box::new(conclusion) })
}

/// Tells why an operation does not even begin. Whoever asked may be gone.
fn refuse<T>(reply: Reply<T>, step: Step, cause: Cause) {
    let _ = reply.send(Err(OperationError::new(step, cause)));
}

#[cfg(test)]
mod tests {
    use vc_agent::fake::FakeAgent;
    use vc_hypervisor::fake::FakeMachine;

    use super::*;

    #[test]
    fn work_is_held_once() {
        let work = async {
            let held = [0_u8; 10_000];
            std::future::pending::<()>().await;
            move |owner: &mut Owner<FakeMachine, FakeAgent>| owner.generation += u64::from(held[0])
        };
        let least = size_of_val(&work);
        let size = size_of_val(&concluding(work));
        assert!(size < least + 200, "{size} bytes around {least}");
    }
}
