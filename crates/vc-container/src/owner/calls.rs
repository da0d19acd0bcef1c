//! Calls that leave the state alone: each is passed on to the guest in a child task of its own.

use vc_agent::{Agent, AgentError, Call, ProcessRef, SignalTarget};
use vc_hypervisor::Machine;

use super::{Owner, Reply, Request, refuse};
use crate::container::Stream;
use crate::error::{Cause, OperationError, Step};
use crate::guest::Guest;
use crate::state::Ask;

impl<M: Machine, A: Agent> Owner<M, A> {
    pub(super) fn pass_on(&mut self, request: Request) {
        match request {
            Request::Signal { target, signal, reply } => {
                let step = match &target {
                    SignalTarget::Process(process) => Step::of(Call::SignalProcess, process),
                    SignalTarget::All(id) => Step::Container(Call::SignalProcess, id.clone()),
                };
                let allowed = match &target {
                    SignalTarget::Process(process) => self.check_process(process, Ask::Signal),
                    SignalTarget::All(id) => self.asked(id, Ask::Signal).map(drop),
                };
                self.call(step, allowed, reply, async move |guest| {
                    let signalled = guest.agent.signal(&target, signal, guest.timing.request());
                    match guest.ask(signalled).await {
                        // What has ended needs no signal any more.
                        Err(Cause::Agent(AgentError::AlreadyGone)) => Ok(()),
                        other => other,
                    }
                });
            }
            Request::Stats { id, reply } => {
                let allowed = self.asked(&id, Ask::Stats).map(drop);
                let step = Step::Container(Call::StatsContainer, id.clone());
                self.call(step, allowed, reply, async move |guest| {
                    guest.ask(guest.agent.container_stats(&id, guest.timing.request())).await
                });
            }
            Request::Diagnostic { id, what, reply } => {
                let allowed = self.asked(&id, Ask::Streams).map(drop);
                let step = Step::Container(Call::GetDiagnosticData, id.clone());
                self.call(step, allowed, reply, async move |guest| {
                    guest.ask(guest.agent.diagnostic(&id, what, guest.timing.request())).await
                });
            }
            Request::VolumeStats { volume, reply } => {
                self.call(Step::InspectVolume(volume.clone()), Ok(()), reply, async move |guest| {
                    guest.volume_stats(&volume).await
                });
            }
            Request::ResizeVolume { volume, bytes, reply } => {
                self.call(Step::GrowVolume(volume.clone()), Ok(()), reply, async move |guest| {
                    guest.resize_volume(&volume, bytes).await
                });
            }
            Request::Read { process, stream, most, reply } => self.read(process, stream, most, reply),
            Request::WriteStdin { process, data, reply } => {
                self.stream(Call::WriteStdin, process, reply, async move |guest, process| {
                    guest.ask(guest.agent.write_stdin(&process, &data)).await
                });
            }
            Request::CloseStdin { process, reply } => {
                self.stream(Call::CloseStdin, process, reply, async move |guest, process| {
                    guest.ask(guest.agent.close_stdin(&process, guest.timing.request())).await
                });
            }
            Request::Resize { process, size, reply } => {
                self.stream(Call::TtyWinResize, process, reply, async move |guest, process| {
                    guest.ask(guest.agent.resize_terminal(&process, size, guest.timing.request())).await
                });
            }
            _ => unreachable!("operations have a file of their own"),
        }
    }

    pub(super) fn machine_stats(&mut self, reply: Reply<vc_hypervisor::Statistics>) {
        self.call(Step::InspectMachine, Ok(()), reply, async move |guest| {
            Ok(guest.machine.statistics(guest.timing.request()).await?)
        });
    }

    fn stream<T: Send + 'static, F: Future<Output = Result<T, Cause>> + Send + 'static>(
        &mut self,
        call: Call,
        process: ProcessRef,
        reply: Reply<T>,
        work: impl FnOnce(Guest<M, A>, ProcessRef) -> F + Send + 'static,
    ) {
        let allowed = self.check_process(&process, Ask::Streams);
        self.call(Step::of(call, &process), allowed, reply, move |guest| work(guest, process));
    }

    /// Whether `ask` is for the container's state, and the process is known.
    fn check_process(&mut self, process: &ProcessRef, ask: Ask) -> Result<(), Cause> {
        let record = self.asked(&process.container, ask)?;
        record.process(process).map(drop).ok_or(Cause::NoSuchProcess)
    }

    fn call<T: Send + 'static, F: Future<Output = Result<T, Cause>> + Send + 'static>(
        &mut self,
        step: Step,
        allowed: Result<(), Cause>,
        reply: Reply<T>,
        work: impl FnOnce(Guest<M, A>) -> F,
    ) {
        if let Err(cause) = allowed {
            return refuse(reply, step, cause);
        }
        let work = work(self.guest.clone());
        self.spawn(async move {
            // Whoever asked may be gone, here and below.
            let _ = reply.send(work.await.map_err(|cause| OperationError::new(step, cause)));
            |_: &mut Self| {}
        });
    }

    fn read(&mut self, process: ProcessRef, stream: Stream, most: u32, mut reply: Reply<Vec<u8>>) {
        let step = Step::of(stream.call(), &process);
        if let Err(cause) = self.check_process(&process, Ask::Streams) {
            return refuse(reply, step, cause);
        }
        let guest = self.guest.clone();
        self.spawn(async move {
            let read = async {
                match stream {
                    Stream::Stdout => guest.ask(guest.agent.read_stdout(&process, most)).await,
                    Stream::Stderr => guest.ask(guest.agent.read_stderr(&process, most)).await,
                }
            };
            tokio::select! {
                result = read => {
                    let _ = reply.send(result.map_err(|cause| OperationError::new(step, cause)));
                }
                // A read may have no end, and nobody wants it any more.
                () = reply.closed() => {}
            }
            |_: &mut Self| {}
        });
    }
}
