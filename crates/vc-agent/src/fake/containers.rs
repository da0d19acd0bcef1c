//! Containers, processes and streams, served by the model.

use oci_spec::runtime::LinuxResources;
use vc_types::{ContainerId, Deadline};

use super::control::{FakeAgent, State};
use super::process::{KILLED, Pipe, Process};
use crate::{
    AgentError, Call, ContainerStats, Containers, CreateContainer, ExecProcess, ExitStatus, ProcessRef,
    Processes, Signal, SignalTarget, Streams, TerminalSize,
};

type Done<T = ()> = Result<T, AgentError>;

impl Containers for FakeAgent {
    async fn create_container(&self, request: &CreateContainer, deadline: Deadline) -> Done {
        let act = |state: &mut State| Some(state.world.create_container(request));
        self.serve(Call::CreateContainer, request.id.to_string(), Some(deadline), act).await
    }

    async fn start_container(&self, id: &ContainerId, deadline: Deadline) -> Done {
        let act = |state: &mut State| Some(state.world.start_container(id));
        self.serve(Call::StartContainer, id.to_string(), Some(deadline), act).await
    }

    async fn remove_container(&self, id: &ContainerId, deadline: Deadline) -> Done {
        let act = |state: &mut State| Some(state.world.remove_container(id));
        self.serve(Call::RemoveContainer, id.to_string(), Some(deadline), act).await
    }

    async fn update_container(
        &self,
        id: &ContainerId,
        resources: &LinuxResources,
        deadline: Deadline,
    ) -> Done {
        let act = |state: &mut State| Some(state.world.update_container(id, resources));
        self.serve(Call::UpdateContainer, id.to_string(), Some(deadline), act).await
    }

    async fn pause_container(&self, id: &ContainerId, deadline: Deadline) -> Done {
        let act = |state: &mut State| Some(state.world.pause(Call::PauseContainer, id, true));
        self.serve(Call::PauseContainer, id.to_string(), Some(deadline), act).await
    }

    async fn resume_container(&self, id: &ContainerId, deadline: Deadline) -> Done {
        let act = |state: &mut State| Some(state.world.pause(Call::ResumeContainer, id, false));
        self.serve(Call::ResumeContainer, id.to_string(), Some(deadline), act).await
    }

    async fn container_stats(&self, id: &ContainerId, deadline: Deadline) -> Done<ContainerStats> {
        let act = |state: &mut State| Some(state.world.stats(id));
        self.serve(Call::StatsContainer, id.to_string(), Some(deadline), act).await
    }
}

impl Processes for FakeAgent {
    async fn exec(&self, request: &ExecProcess, deadline: Deadline) -> Done {
        let act = |state: &mut State| Some(state.world.exec(request));
        self.serve(Call::ExecProcess, request.reference().to_string(), Some(deadline), act).await
    }

    async fn signal(&self, target: &SignalTarget, signal: Signal, deadline: Deadline) -> Done {
        let on = match target {
            SignalTarget::Process(process) => process.to_string(),
            SignalTarget::All(container) => format!("all of {container}"),
        };
        let name = on.clone();
        let act = |state: &mut State| Some(send(state, target, &name, signal));
        self.serve(Call::SignalProcess, on, Some(deadline), act).await
    }

    async fn wait(&self, process: &ProcessRef) -> Done<ExitStatus> {
        let mut was_there = false;
        let act = |state: &mut State| match state.world.find(Call::WaitProcess, process) {
            Ok(found) => {
                was_there = true;
                found.was_waited_for |= found.status.is_some();
                found.status.map(Ok)
            }
            // Its container was removed, and so it was killed.
            Err(_) if was_there => Some(Ok(KILLED)),
            Err(error) => Some(Err(error)),
        };
        self.serve(Call::WaitProcess, process.to_string(), None, act).await
    }

    async fn resize_terminal(&self, process: &ProcessRef, size: TerminalSize, deadline: Deadline) -> Done {
        let call = Call::TtyWinResize;
        let act = |state: &mut State| {
            Some(state.world.with_streams(call, process).and_then(|found| {
                if !found.has_terminal {
                    let detail = "the process has no terminal".to_owned();
                    return Err(AgentError::Refused { call, detail });
                }
                found.size = Some(size);
                Ok(())
            }))
        };
        self.serve(call, process.to_string(), Some(deadline), act).await
    }
}

fn send(state: &mut State, target: &SignalTarget, on: &str, signal: Signal) -> Done {
    let call = Call::SignalProcess;
    let container = match target {
        SignalTarget::Process(process) => {
            let found = state.world.find(call, process)?;
            if found.status.is_some() {
                return Err(AgentError::AlreadyGone);
            }
            found.take(signal);
            &process.container
        }
        SignalTarget::All(container) => {
            let mut all = state.world.all(call, container)?.filter(|process| process.status.is_none());
            let Some(first) = all.next() else { return Err(AgentError::AlreadyGone) };
            first.take(signal);
            all.for_each(|process| process.take(signal));
            container
        }
    };
    state.world.settle(container);
    FakeAgent::note_signal(state, on.to_owned(), signal);
    Ok(())
}

impl Streams for FakeAgent {
    async fn write_stdin(&self, process: &ProcessRef, data: &[u8]) -> Done<usize> {
        let call = Call::WriteStdin;
        let act = |state: &mut State| {
            let found = match state.world.with_streams(call, process) {
                Ok(found) if found.stdin.ended => return Some(Err(AgentError::StreamClosed)),
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            let taken = found.stdin.write(data);
            found.go_on();
            state.world.settle(&process.container);
            (taken > 0 || data.is_empty()).then_some(Ok(taken))
        };
        self.serve(call, process.to_string(), None, act).await
    }

    async fn close_stdin(&self, process: &ProcessRef, deadline: Deadline) -> Done {
        let call = Call::CloseStdin;
        let act = |state: &mut State| {
            let closed = state.world.with_streams(call, process).map(|found| {
                found.stdin.ended = true;
                found.go_on();
            });
            state.world.settle(&process.container);
            Some(closed)
        };
        self.serve(call, process.to_string(), Some(deadline), act).await
    }

    async fn read_stdout(&self, process: &ProcessRef, most: u32) -> Done<Vec<u8>> {
        self.read(Call::ReadStdout, process, most, |process| &mut process.stdout).await
    }

    async fn read_stderr(&self, process: &ProcessRef, most: u32) -> Done<Vec<u8>> {
        self.read(Call::ReadStderr, process, most, |process| &mut process.stderr).await
    }
}

impl FakeAgent {
    async fn read(
        &self,
        call: Call,
        process: &ProcessRef,
        most: u32,
        pipe: impl Fn(&mut Process) -> &mut Pipe,
    ) -> Done<Vec<u8>> {
        if most == 0 {
            let detail = "a read must ask for 1 byte or more".to_owned();
            return Err(AgentError::Unsendable { call, detail });
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let act = |state: &mut State| match state.world.with_streams(call, process) {
            Ok(found) => {
                let bytes = pipe(found).read(most);
                found.go_on();
                bytes.map(Ok)
            }
            Err(error) => Some(Err(error)),
        };
        self.serve(call, process.to_string(), None, act).await
    }
}
