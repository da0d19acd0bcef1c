//! The port, served by the model.

use vc_types::{ContainerId, Deadline};

use super::control::{FakeAgent, State};
use super::process::{Pipe, Process};
use crate::{
    AgentError, Call, Containers, CreateContainer, CreateSandbox, ExitStatus, Guest, ProcessRef, Processes,
    Signal, SignalTarget, Streams, TerminalSize,
};

impl Guest for FakeAgent {
    async fn check(&self, deadline: Deadline) -> Result<(), AgentError> {
        self.serve(Call::Check, String::new(), Some(deadline), |_| Some(Ok(()))).await
    }

    async fn create_sandbox(&self, request: &CreateSandbox, deadline: Deadline) -> Result<(), AgentError> {
        let act = |state: &mut State| Some(state.world.create_sandbox(request));
        self.serve(Call::CreateSandbox, request.id.to_string(), Some(deadline), act).await
    }

    async fn destroy_sandbox(&self, deadline: Deadline) -> Result<(), AgentError> {
        let act = |state: &mut State| {
            let done = state.world.destroy_sandbox();
            // The guest powers off.
            state.is_gone = done.is_ok();
            Some(done)
        };
        self.serve(Call::DestroySandbox, String::new(), Some(deadline), act).await
    }
}

impl Containers for FakeAgent {
    async fn create_container(
        &self,
        request: &CreateContainer,
        deadline: Deadline,
    ) -> Result<(), AgentError> {
        let act = |state: &mut State| Some(state.world.create_container(request));
        self.serve(Call::CreateContainer, request.id.to_string(), Some(deadline), act).await
    }

    async fn start_container(&self, id: &ContainerId, deadline: Deadline) -> Result<(), AgentError> {
        let act = |state: &mut State| Some(state.world.start_container(id));
        self.serve(Call::StartContainer, id.to_string(), Some(deadline), act).await
    }

    async fn remove_container(&self, id: &ContainerId, deadline: Deadline) -> Result<(), AgentError> {
        let act = |state: &mut State| Some(state.world.remove_container(id));
        self.serve(Call::RemoveContainer, id.to_string(), Some(deadline), act).await
    }
}

impl Processes for FakeAgent {
    async fn signal(
        &self,
        target: &SignalTarget,
        signal: Signal,
        deadline: Deadline,
    ) -> Result<(), AgentError> {
        let (process, on) = match target {
            SignalTarget::Process(process) => (process.clone(), process.to_string()),
            SignalTarget::All(container) => (ProcessRef::init(container), format!("all of {container}")),
        };
        let name = on.clone();
        let act = |state: &mut State| Some(send(state, &process, &name, signal));
        self.serve(Call::SignalProcess, on, Some(deadline), act).await
    }

    async fn wait(&self, process: &ProcessRef) -> Result<ExitStatus, AgentError> {
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
}

const KILLED: ExitStatus = ExitStatus(137);

fn send(state: &mut State, process: &ProcessRef, on: &str, signal: Signal) -> Result<(), AgentError> {
    let found = state.world.find(Call::SignalProcess, process)?;
    if found.status.is_some() {
        return Err(AgentError::AlreadyGone);
    }
    if let Some(status) = status_by(signal) {
        found.end(status);
    }
    FakeAgent::note_signal(state, on.to_owned(), signal);
    Ok(())
}

/// How a process ends that `signal` ends; `None` for all signals but KILL and TERM.
fn status_by(signal: Signal) -> Option<ExitStatus> {
    match signal {
        Signal::KILL => Some(KILLED),
        Signal::TERM => Some(ExitStatus(143)),
        _ => None,
    }
}

impl Streams for FakeAgent {
    async fn write_stdin(&self, process: &ProcessRef, data: &[u8]) -> Result<usize, AgentError> {
        let call = Call::WriteStdin;
        let act = |state: &mut State| {
            let found = match state.world.with_streams(call, process) {
                Ok(found) if found.stdin.ended => return Some(Err(AgentError::StreamClosed)),
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            let taken = found.stdin.write(data);
            found.go_on();
            (taken > 0 || data.is_empty()).then_some(Ok(taken))
        };
        self.serve(call, process.to_string(), None, act).await
    }

    async fn close_stdin(&self, process: &ProcessRef, deadline: Deadline) -> Result<(), AgentError> {
        let call = Call::CloseStdin;
        let act = |state: &mut State| {
            Some(state.world.with_streams(call, process).map(|found| {
                found.stdin.ended = true;
                found.go_on();
            }))
        };
        self.serve(call, process.to_string(), Some(deadline), act).await
    }

    async fn read_stdout(&self, process: &ProcessRef, most: u32) -> Result<Vec<u8>, AgentError> {
        self.read(Call::ReadStdout, process, most, |process| &mut process.stdout).await
    }

    async fn read_stderr(&self, process: &ProcessRef, most: u32) -> Result<Vec<u8>, AgentError> {
        self.read(Call::ReadStderr, process, most, |process| &mut process.stderr).await
    }

    async fn resize_terminal(
        &self,
        process: &ProcessRef,
        size: TerminalSize,
        deadline: Deadline,
    ) -> Result<(), AgentError> {
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

impl FakeAgent {
    async fn read(
        &self,
        call: Call,
        process: &ProcessRef,
        most: u32,
        pipe: impl Fn(&mut Process) -> &mut Pipe,
    ) -> Result<Vec<u8>, AgentError> {
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
