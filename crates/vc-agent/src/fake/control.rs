//! The fake itself: what a test tells it and sees of it.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::sleep;
use vc_types::{ContainerId, Deadline};

use super::fault::{Fault, Plan};
use super::process::Program;
use super::world::{Left, World};
use crate::{
    AgentError, Call, CreateContainer, ExitStatus, Feature, Interface, Neighbor, ProcessRef, Signal,
    TerminalSize,
};

/// An agent without a guest. Clones are the same agent.
#[derive(Clone, Debug, Default)]
pub struct FakeAgent(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) world: World,
    calls: Vec<(Call, String)>,
    signals: Vec<(String, Signal)>,
    plan: Option<Plan>,
    has_failed: bool,
    pub(super) is_gone: bool,
}

/// A test asked for a process that is not there.
const NO_PROCESS: &str = "the fake has no such process";

impl FakeAgent {
    /// An agent that does what it is asked to.
    pub fn new() -> Self {
        Self::default()
    }

    /// An agent that refuses its `n`-th call, and does what the others ask for.
    pub fn failing_at(n: NonZeroU32) -> Self {
        Self::with_fault(n, Fault::Refuse)
    }

    /// An agent whose `n`-th call goes wrong. Connecting by
    /// [`FakeConnector`](super::FakeConnector) is a call as well.
    ///
    /// A call without a deadline that [hangs](Fault::Hang) does so for ever. With tokio's clock paused
    /// (`start_paused`), one that has a deadline meets it at once.
    pub fn with_fault(n: NonZeroU32, fault: Fault) -> Self {
        let agent = Self::default();
        agent.state().plan = Some(Plan { call: n, fault });
        agent
    }

    /// Makes `command`, an OCI process's arguments joined by spaces, run `program`. Every other
    /// command runs [`Program::Waits`].
    #[must_use]
    pub fn program(self, command: &str, program: Program) -> Self {
        self.state().world.programs.insert(command.to_owned(), program);
        self
    }

    /// Gives the guest another interface.
    #[must_use]
    pub fn interface(self, interface: Interface) -> Self {
        self.state().world.net.interfaces.push(interface);
        self
    }

    /// Lets so many processors appear when the guest is told that they were plugged.
    #[must_use]
    pub fn plugged_processors(self, count: u32) -> Self {
        self.state().world.plugged_processors = count;
        self
    }

    /// Makes the guest's agent one that gives containers devices of this kind.
    #[must_use]
    pub fn device_kind(self, kind: &str) -> Self {
        self.state().world.device_kinds.push(kind.to_owned());
        self
    }

    /// Makes the guest's agent one that can do this beyond the agent protocol.
    #[must_use]
    pub fn feature(self, feature: Feature) -> Self {
        self.state().world.features.push(feature);
        self
    }

    /// What a container that is in the guest was asked for as.
    pub fn request(&self, id: &ContainerId) -> Option<CreateContainer> {
        self.state().world.request(id).cloned()
    }

    /// The neighbours that the guest was told of.
    pub fn neighbors(&self) -> Vec<Neighbor> {
        self.state().world.net.neighbors.clone()
    }

    /// What is left in the guest.
    pub fn left(&self) -> Left {
        self.state().world.left()
    }

    /// The calls so far, and what each was about: a sandbox, a container or a process.
    pub fn calls(&self) -> Vec<(Call, String)> {
        self.state().calls.clone()
    }

    /// The signals that found a process, and whom they were for.
    pub fn signals(&self) -> Vec<(String, Signal)> {
        self.state().signals.clone()
    }

    /// Whether the planned fault has come to pass.
    pub fn has_failed(&self) -> bool {
        self.state().has_failed
    }

    /// Has the next call go wrong, whichever that is.
    pub fn fail_next(&self, fault: Fault) {
        let mut state = self.state();
        let next = u32::try_from(state.calls.len()).ok().and_then(|calls| NonZeroU32::MIN.checked_add(calls));
        state.plan = next.map(|call| Plan { call, fault });
    }

    /// From now on no call goes wrong by plan.
    pub fn heal(&self) {
        self.state().plan = None;
    }

    /// Ends the connection: calls under way and all later ones meet [`AgentError::Disconnected`].
    pub fn disconnect(&self) {
        self.change(|state| state.is_gone = true);
    }

    /// Whether the connection has ended, by a fault or because the guest is gone.
    pub fn is_disconnected(&self) -> bool {
        self.state().is_gone
    }

    /// Ends a process.
    ///
    /// # Panics
    /// When the process is not there.
    pub fn end(&self, process: &ProcessRef, status: ExitStatus) {
        self.change(|state| {
            state.world.find(Call::Check, process).expect(NO_PROCESS).end(status);
            state.world.settle(&process.container);
        });
    }

    /// Has a process print to its standard output.
    ///
    /// # Panics
    /// When the process is not there.
    pub fn print(&self, process: &ProcessRef, text: &[u8]) {
        self.change(|state| {
            state.world.find(Call::Check, process).expect(NO_PROCESS).stdout.bytes.extend(text);
        });
    }

    /// Has a process print to its standard error.
    ///
    /// # Panics
    /// When the process is not there.
    pub fn print_error(&self, process: &ProcessRef, text: &[u8]) {
        self.change(|state| {
            state.world.find(Call::Check, process).expect(NO_PROCESS).stderr.bytes.extend(text);
        });
    }

    /// Has a process read what is in its standard input.
    ///
    /// # Panics
    /// When the process is not there.
    pub fn take_input(&self, process: &ProcessRef) -> Vec<u8> {
        self.change(|state| {
            let process = state.world.find(Call::Check, process).expect(NO_PROCESS);
            process.stdin.bytes.drain(..).collect()
        })
    }

    /// The size that a process's terminal was told last.
    ///
    /// # Panics
    /// When the process is not there.
    pub fn terminal_size(&self, process: &ProcessRef) -> Option<TerminalSize> {
        self.state().world.find(Call::Check, process).expect(NO_PROCESS).size
    }

    /// Serves one call: `act` is tried at each change of the guest until it has a result.
    pub(super) async fn serve<T>(
        &self,
        call: Call,
        on: String,
        deadline: Option<Deadline>,
        mut act: impl FnMut(&mut State) -> Option<Result<T, AgentError>>,
    ) -> Result<T, AgentError> {
        let fault = self.enter(call, on);
        match fault {
            Some(Fault::Refuse) => {
                return Err(AgentError::Refused { call, detail: "a test wants this call to fail".into() });
            }
            Some(Fault::Hang) => return hang(call, deadline).await,
            Some(Fault::Disconnect) => self.disconnect(),
            Some(Fault::AnswerLate) | None => {}
        }
        let result = self.wait_until(call, deadline, &mut act).await;
        if fault == Some(Fault::AnswerLate) { hang(call, deadline).await } else { result }
    }

    /// Notes the call; tells how it goes wrong.
    fn enter(&self, call: Call, on: String) -> Option<Fault> {
        let mut state = self.state();
        state.calls.push((call, on));
        let plan = state.plan?;
        let fails = u32::try_from(state.calls.len()) == Ok(plan.call.get());
        state.has_failed |= fails;
        fails.then_some(plan.fault)
    }

    async fn wait_until<T>(
        &self,
        call: Call,
        deadline: Option<Deadline>,
        act: &mut impl FnMut(&mut State) -> Option<Result<T, AgentError>>,
    ) -> Result<T, AgentError> {
        let served = async {
            loop {
                let changed = self.0.changed.notified();
                let result = self.change_if(|state| {
                    if state.is_gone { Some(Err(AgentError::Disconnected { call })) } else { act(state) }
                });
                match result {
                    Some(result) => return result,
                    None => changed.await,
                }
            }
        };
        tokio::select! {
            biased;
            result = served => result,
            late = hang(call, deadline) => late,
        }
    }

    pub(super) fn note_signal(state: &mut State, on: String, signal: Signal) {
        state.signals.push((on, signal));
    }

    fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let result = act(&mut self.state());
        self.0.changed.notify_waiters();
        result
    }

    /// As [`change`](Self::change), but nobody is told when nothing came of it.
    fn change_if<T>(&self, act: impl FnOnce(&mut State) -> Option<T>) -> Option<T> {
        let result = act(&mut self.state());
        if result.is_some() {
            self.0.changed.notify_waiters();
        }
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No answer until the deadline, or ever.
async fn hang<T>(call: Call, deadline: Option<Deadline>) -> Result<T, AgentError> {
    match deadline {
        Some(deadline) => sleep(deadline.remaining()).await,
        None => std::future::pending().await,
    }
    Err(AgentError::Deadline { call })
}
