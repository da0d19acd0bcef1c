//! The one task that owns a sandbox: takes requests, starts child tasks, and alone changes the state.

mod record;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use vc_agent::{Agent, AgentError, Call, ExitStatus, Signal, TerminalSize};
use vc_hypervisor::{Machine, MachineExit};
use vc_storage::Packing;
use vc_types::ContainerId;

use crate::container::{ContainerSpec, Stream};
use crate::error::{Cause, Leftover, OperationError, Step};
use crate::runtime_dir::RuntimeDir;
use crate::sandbox::end;
use crate::state::{ContainerStatus, Op, SandboxStatus, State};
use crate::timing::Timing;
use crate::undo::Undo;

use record::Record;
use work::{Done, Guest, Purpose};

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, OperationError>>;

/// What the handles ask of the owner.
pub(crate) enum Request {
    Create { id: ContainerId, spec: Box<ContainerSpec>, reply: Reply<()> },
    Start { id: ContainerId, reply: Reply<()> },
    Wait { id: ContainerId, reply: Reply<ExitStatus> },
    Signal { id: ContainerId, signal: Signal, reply: Reply<()> },
    Stop { id: ContainerId, reply: Reply<Vec<Leftover>> },
    Delete { id: ContainerId, reply: Reply<()> },
    Read { id: ContainerId, stream: Stream, most: u32, reply: Reply<Vec<u8>> },
    WriteStdin { id: ContainerId, data: Vec<u8>, reply: Reply<usize> },
    CloseStdin { id: ContainerId, reply: Reply<()> },
    Resize { id: ContainerId, size: TerminalSize, reply: Reply<()> },
    StopSandbox { reply: oneshot::Sender<Vec<Leftover>> },
    KillMachine { reply: oneshot::Sender<()> },
}

pub(crate) struct Owner<M, A> {
    guest: Guest<M, A>,
    containers: BTreeMap<ContainerId, Record>,
    work: JoinSet<Done>,
    /// How many containers were created.
    generation: u64,
    stopped: bool,
    machine_exit: Option<MachineExit>,
    publisher: watch::Sender<SandboxStatus>,
    dir: RuntimeDir,
}

impl<M: Machine, A: Agent> Owner<M, A> {
    pub(crate) fn new(
        machine: Arc<M>,
        agent: Arc<A>,
        dir: RuntimeDir,
        timing: Timing,
        publisher: watch::Sender<SandboxStatus>,
    ) -> Self {
        let guest = Guest { machine, agent, timing };
        Self {
            guest,
            containers: BTreeMap::new(),
            work: JoinSet::new(),
            generation: 0,
            stopped: false,
            machine_exit: None,
            publisher,
            dir,
        }
    }

    /// Serves until the sandbox is stopped, or nobody holds a handle any more.
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    None => break,
                    Some(Request::StopSandbox { reply }) => {
                        let left = self.stop_sandbox().await;
                        let stopped = left.is_empty();
                        // Whoever asked may be gone.
                        let _ = reply.send(left);
                        if stopped {
                            return;
                        }
                    }
                    Some(request) => self.take(request),
                },
                Some(done) = self.work.join_next() => {
                    self.conclude(done.expect("child tasks neither panic nor are aborted"));
                }
                exit = self.guest.machine.exited(), if self.machine_exit.is_none() => self.machine_ended(exit),
            }
            self.publish();
        }
        self.work.shutdown().await;
        for left in end(&*self.guest.machine, self.dir, &self.guest.timing).await {
            tracing::error!(step = %left.step, cause = %left.cause, "an abandoned sandbox left something");
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Create { id, spec, reply } => self.create(id, *spec, reply),
            Request::Start { id, reply } => self.start(id, reply),
            Request::Wait { id, reply } => self.wait(id, reply),
            Request::Stop { id, reply } => self.stop(id, reply),
            Request::Delete { id, reply } => self.delete(id, reply),
            Request::Signal { id, signal, reply } => {
                let ask = Ask { id, call: Call::SignalProcess, allowed: alive };
                self.call(ask, reply, |guest, id| guest.signal(id, signal));
            }
            Request::Read { id, stream, most, reply } => {
                let ask = Ask { id, call: stream.call(), allowed: made };
                self.call(ask, reply, move |guest, id| guest.read(id, stream, most));
            }
            Request::WriteStdin { id, data, reply } => {
                let ask = Ask { id, call: Call::WriteStdin, allowed: made };
                self.call(ask, reply, |guest, id| guest.write_stdin(id, data));
            }
            Request::CloseStdin { id, reply } => {
                let ask = Ask { id, call: Call::CloseStdin, allowed: made };
                self.call(ask, reply, |guest, id| guest.close_stdin(id));
            }
            Request::Resize { id, size, reply } => {
                let ask = Ask { id, call: Call::TtyWinResize, allowed: made };
                self.call(ask, reply, move |guest, id| guest.resize(id, size));
            }
            Request::KillMachine { reply } => {
                let guest = self.guest.clone();
                self.work.spawn(async move {
                    // What cannot be ended is told by the stop that follows.
                    let _ = guest.machine.stop(guest.timing.undo()).await;
                    let _ = reply.send(());
                    Done::Call
                });
            }
            Request::StopSandbox { .. } => unreachable!("taken by the loop"),
        }
    }

    /// Passes one call on to the agent in a child task; the container's state does not change.
    fn call<T, F>(&mut self, ask: Ask, reply: Reply<T>, work: impl FnOnce(Guest<M, A>, ContainerId) -> F)
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Cause>> + Send + 'static,
    {
        let Ask { id, call, allowed } = ask;
        let step = Step::Container(call, id.clone());
        let state = self.containers.get(&id).map(|record| record.state);
        let refusal = match state {
            None => Some(Cause::NoSuchContainer),
            Some(state) if !allowed(state) => Some(Cause::NotNow(state)),
            Some(_) => None,
        };
        if let Some(cause) = refusal {
            let _ = reply.send(Err(OperationError::new(step, cause)));
            return;
        }
        let work = work(self.guest.clone(), id);
        self.work.spawn(async move {
            let result = work.await.map_err(|cause| OperationError::new(step, cause));
            let _ = reply.send(result);
            Done::Call
        });
    }

    fn create(&mut self, id: ContainerId, spec: ContainerSpec, reply: Reply<()>) {
        if self.containers.contains_key(&id) {
            let _ = reply.send(Err(OperationError::new(Step::CheckState(id), Cause::Exists)));
            return;
        }
        let taken: Vec<u32> =
            self.containers.values().flat_map(|record| record.disks.iter().copied()).collect();
        let layers = spec.layers.len();
        let wanted = Packing::for_layers(layers).disks(layers);
        let disks: Vec<u32> = (0..).filter(|n| !taken.contains(n)).take(wanted).collect();
        self.generation += 1;
        self.containers.insert(id.clone(), Record::creating(self.generation, disks.clone()));
        let guest = self.guest.clone();
        self.work.spawn(async move {
            let (undo, result) = guest.create(&id, spec, &disks).await;
            Done::Created { id, undo, result, reply }
        });
    }

    fn start(&mut self, id: ContainerId, reply: Reply<()>) {
        let checked = self.idle(&id).and_then(|record| {
            record.state.after(Op::Start)?;
            record.busy = true;
            Ok(())
        });
        if let Err(cause) = checked {
            let _ = reply.send(Err(OperationError::new(Step::CheckState(id), cause)));
            return;
        }
        let guest = self.guest.clone();
        self.work.spawn(async move {
            let result = guest.start(&id).await;
            Done::Started { id, result, reply }
        });
    }

    fn wait(&mut self, id: ContainerId, reply: Reply<ExitStatus>) {
        let Some(record) = self.containers.get_mut(&id) else {
            let _ = reply.send(Err(OperationError::new(Step::CheckState(id), Cause::NoSuchContainer)));
            return;
        };
        match &self.machine_exit {
            Some(exit) if record.exit().is_none() => {
                let step = Step::Container(Call::WaitProcess, id);
                let _ = reply.send(Err(OperationError::new(step, Cause::MachineGone(exit.clone()))));
            }
            _ => {
                record.tell_exit(&id, reply);
                self.watch(&id, false);
            }
        }
    }

    /// Has a child task wait for the end of the container's process, if that is wanted now.
    fn watch(&mut self, id: &ContainerId, asked: bool) {
        let Some(record) = self.containers.get_mut(id) else { return };
        if record.wants_watch(asked) {
            let (id, generation, guest) = (id.clone(), record.generation, self.guest.clone());
            self.work.spawn(async move {
                let result = guest.wait(&id).await;
                Done::Exited { id, generation, result }
            });
        }
    }

    fn stop(&mut self, id: ContainerId, reply: Reply<Vec<Leftover>>) {
        if let Err(cause) = self.idle(&id) {
            let _ = reply.send(Err(OperationError::new(Step::CheckState(id), cause)));
            return;
        }
        self.release(id, Purpose::Stop(reply));
    }

    fn delete(&mut self, id: ContainerId, reply: Reply<()>) {
        let checked = self.idle(&id).and_then(|record| Ok(record.state.after(Op::Delete).map(drop)?));
        if let Err(cause) = checked {
            let _ = reply.send(Err(OperationError::new(Step::CheckState(id), cause)));
            return;
        }
        self.release(id, Purpose::Delete(reply));
    }

    /// Ends what runs and releases what is held, in a child task that has the undo list meanwhile.
    fn release(&mut self, id: ContainerId, purpose: Purpose) {
        self.watch(&id, true);
        let record = self.containers.get_mut(&id).expect("checked by the caller");
        record.busy = true;
        let (was, running) = (record.state, record.end_of_process());
        let mut undo = std::mem::take(&mut record.held);
        let guest = self.guest.clone();
        self.work.spawn(async move {
            if was != State::Stopped {
                guest.kill(&id, running).await;
            }
            let left = undo.run(&*guest.machine, &*guest.agent, &guest.timing).await;
            Done::Released { id, undo, left, purpose }
        });
    }

    /// The container, if no other operation on it is under way.
    fn idle(&mut self, id: &ContainerId) -> Result<&mut Record, Cause> {
        match self.containers.get_mut(id) {
            None => Err(Cause::NoSuchContainer),
            Some(record) if record.busy => Err(Cause::Busy),
            Some(record) => Ok(record),
        }
    }

    fn conclude(&mut self, done: Done) {
        match done {
            Done::Call => {}
            Done::Created { id, undo, result, reply } => self.created(&id, undo, result, reply),
            Done::Started { id, result, reply } => self.started(id, result, reply),
            Done::Exited { id, generation, result } => match self.containers.get_mut(&id) {
                Some(record) if record.generation == generation => {
                    record.process_ended(&id, result.map_err(|cause| cause.to_string()));
                }
                _ => tracing::debug!(container = %id, "an end was told after the container was deleted"),
            },
            Done::Released { id, undo, left, purpose } => self.released(id, undo, left, purpose),
        }
    }

    fn created(
        &mut self,
        id: &ContainerId,
        undo: Undo,
        result: Result<(), OperationError>,
        reply: Reply<()>,
    ) {
        let record = self.no_longer_busy(id);
        record.keep(undo);
        match &result {
            Ok(()) => record.go(Op::Created),
            Err(_) if record.holds_nothing() => drop(self.containers.remove(id)),
            // What could not be undone is held by a container that never was; it can be stopped again.
            Err(_) => record.go(Op::End),
        }
        // Whoever asked may be gone, here and below.
        let _ = reply.send(result);
    }

    fn started(&mut self, id: ContainerId, result: Result<(), Cause>, reply: Reply<()>) {
        if let Err(cause) = result {
            let error = OperationError::new(Step::Container(Call::StartContainer, id.clone()), cause);
            return self.release(id, Purpose::FailedStart(error, reply));
        }
        self.no_longer_busy(&id).go(Op::Start);
        self.watch(&id, false);
        let _ = reply.send(Ok(()));
    }

    fn released(&mut self, id: ContainerId, undo: Undo, left: Vec<Leftover>, purpose: Purpose) {
        let record = self.no_longer_busy(&id);
        record.keep(undo);
        let why =
            if record.state == State::Ready { "it never ran" } else { "nothing was heard of it in time" };
        record.process_ended(&id, Err(why.to_owned()));
        match purpose {
            Purpose::Stop(reply) => drop(reply.send(Ok(left))),
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

    fn no_longer_busy(&mut self, id: &ContainerId) -> &mut Record {
        let record = self.containers.get_mut(id).expect("a busy container is not forgotten");
        record.busy = false;
        record
    }

    fn machine_ended(&mut self, exit: MachineExit) {
        for (id, record) in &mut self.containers {
            record.machine_ended(id, &exit);
        }
        self.machine_exit = Some(exit);
    }

    async fn stop_sandbox(&mut self) -> Vec<Leftover> {
        let Guest { machine, agent, timing } = self.guest.clone();
        if self.machine_exit.is_none() {
            let asked = tokio::select! {
                asked = agent.destroy_sandbox(timing.undo()) => asked,
                _ = machine.exited() => Ok(()),
            };
            match asked {
                // A guest that is gone before its answer was read has done as it was told.
                Ok(()) | Err(AgentError::Disconnected { .. }) => {
                    drop(tokio::time::timeout(timing.power_off, machine.exited()).await);
                }
                Err(error) => tracing::warn!(%error, "the guest did not power off by itself"),
            }
        }
        let mut left = Vec::new();
        match machine.stop(timing.undo()).await {
            Ok(exit) => self.machine_ended(exit),
            Err(error) => left.push(Leftover { step: Step::StopMachine, cause: error.into() }),
        }
        if let Err(error) = self.dir.remove() {
            left.push(Leftover {
                step: Step::RemoveRuntimeDir(self.dir.path().clone()),
                cause: error.into(),
            });
        }
        self.stopped = left.is_empty();
        self.publish();
        left
    }

    fn publish(&self) {
        let status = |record: &Record| ContainerStatus { state: record.state, exit: record.exit() };
        let containers = self.containers.iter().map(|(id, record)| (id.clone(), status(record)));
        let machine_exit = self.machine_exit.clone();
        let now = SandboxStatus { containers: containers.collect(), machine_exit, stopped: self.stopped };
        self.publisher.send_replace(now);
    }
}

/// One call for the agent, in the states that allow it.
struct Ask {
    id: ContainerId,
    call: Call,
    allowed: fn(State) -> bool,
}

fn alive(state: State) -> bool {
    matches!(state, State::Ready | State::Running | State::Paused)
}

/// Streams can be used as soon as the guest has the container, and read to the end after it.
fn made(state: State) -> bool {
    state != State::Creating
}
