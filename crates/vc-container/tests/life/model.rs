//! Any sequence of operations, with calls that go wrong in between, against a model that knows nothing but
//! the table of states.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use vc_agent::fake::{FakeAgent, Fault};
use vc_agent::{Call, ExitStatus, ProcessRef, Signal};
use vc_container::Step::CheckState as Check;
use vc_container::{Ask, Cause, Op, OperationError, Sandbox, State};
use vc_hypervisor::fake::FakeHypervisor;

use crate::bench::{Bench, id, process};

const NAMES: [&str; 3] = ["one", "two", "three"];

/// An operation on one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Do {
    Create,
    Start,
    Exec,
    Pause,
    Resume,
    Signal,
    /// Its process ends by itself, and somebody waits for it.
    Ends,
    Stop,
    Delete,
}

const ALL: [Do; 9] =
    [Do::Create, Do::Start, Do::Exec, Do::Pause, Do::Resume, Do::Signal, Do::Ends, Do::Stop, Do::Delete];

/// Two callers, each with an operation on a container of its own; perhaps one call goes wrong.
#[derive(Clone, Debug)]
struct Step {
    first: (usize, Do),
    second: Option<(usize, Do)>,
    fault: Option<Fault>,
}

/// A container as far as the model knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    state: State,
    /// Whether guest and machine hold something of it.
    held: bool,
}

/// The containers that there are.
#[derive(Clone, Debug, Default)]
struct Model(BTreeMap<usize, Known>);

impl Model {
    /// The container after an operation that meets no fault; `None` if it is refused.
    fn after(&self, name: usize, what: Do) -> Option<Option<Known>> {
        let Some(known) = self.0.get(&name).copied() else {
            let new = Known { state: State::Ready, held: true };
            return (what == Do::Create).then_some(Some(new));
        };
        let op = match what {
            Do::Create => return None,
            Do::Exec => return known.state.allows(Ask::Exec).then_some(Some(known)),
            Do::Signal => return known.state.allows(Ask::Signal).then_some(Some(known)),
            Do::Start => Op::Start,
            Do::Pause => Op::Pause,
            Do::Resume => Op::Resume,
            Do::Ends | Do::Stop => Op::End,
            Do::Delete => Op::Delete,
        };
        let held = known.held && what != Do::Stop;
        known.state.after(op).ok().map(|state| state.map(|state| Known { state, held }))
    }

    /// The container after an operation whose first call of the agent went wrong.
    fn after_fault(&self, name: usize, what: Do) -> Option<Known> {
        let known = self.0.get(&name).copied();
        let ended = Some(Known { state: State::Stopped, held: false });
        let is_held = known.is_some_and(|known| known.held);
        match (what, self.after(name, what)) {
            (_, None) => known,
            // One that cannot be started is stopped.
            (Do::Start, _) => ended,
            // A kill that goes wrong is no obstacle to the removal.
            (Do::Stop, _) if known.is_some_and(|known| known.state != State::Stopped) => ended,
            (Do::Stop | Do::Delete, Some(after)) if !is_held => after,
            _ => known,
        }
    }

    fn set(&mut self, name: usize, known: Option<Known>) {
        match known {
            Some(known) => drop(self.0.insert(name, known)),
            None => drop(self.0.remove(&name)),
        }
    }
}

fn operation() -> impl Strategy<Value = (usize, Do)> {
    (0..NAMES.len(), proptest::sample::select(ALL.to_vec()))
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        let faults = [Fault::Refuse, Fault::Hang, Fault::AnswerLate];
        let fault = proptest::option::weighted(0.2, proptest::sample::select(faults.to_vec()));
        let step = |(first, second, fault)| Step { first, second, fault };
        (operation(), proptest::option::of(operation()), fault).prop_map(step).boxed()
    }

    fn preconditions(model: &Self, step: &Step) -> bool {
        let state = |name| model.0.get(&name).map(|known: &Known| known.state);
        // Only a process that runs can end by itself.
        let can_end = |(name, what)| what != Do::Ends || state(name) == Some(State::Running);
        let Some(fault) = step.fault else {
            let apart = step.second.is_none_or(|(name, _)| name != step.first.0);
            return apart && can_end(step.first) && step.second.is_none_or(can_end);
        };
        // Which of two operations meets the fault, nobody knows; nor what a removal did that was not answered.
        let (name, what) = step.first;
        let unknown = fault == Fault::AnswerLate && state(name) == Some(State::Stopped);
        step.second.is_none() && what != Do::Ends && !unknown
    }

    fn apply(mut model: Self, step: &Step) -> Self {
        let (name, what) = step.first;
        if step.fault.is_some() {
            let after = model.after_fault(name, what);
            model.set(name, after);
            return model;
        }
        for (name, what) in [Some(step.first), step.second].into_iter().flatten() {
            if let Some(after) = model.after(name, what) {
                model.set(name, after);
            }
        }
        model
    }
}

/// The sandbox, and what the model says of it.
struct System {
    runtime: tokio::runtime::Runtime,
    bench: Bench,
    sandbox: Option<Sandbox>,
    model: Model,
    execs: usize,
}

impl System {
    async fn carry_out(&self, (name, what): (usize, Do), exec: usize) -> Result<(), OperationError> {
        let sandbox = self.sandbox.as_ref().unwrap();
        let name = NAMES[name];
        if what == Do::Create {
            return self.bench.container(sandbox, name).await.map(drop);
        }
        let missing =
            || OperationError { step: Check(id(name)), cause: Cause::NoSuchContainer, left: vec![] };
        let container = sandbox.container(&id(name)).ok_or_else(missing)?;
        match what {
            Do::Create => unreachable!("done above"),
            Do::Start => container.start().await,
            Do::Exec => container.exec(format!("e{exec}").parse().unwrap(), process("job")).await.map(drop),
            Do::Pause => container.pause().await,
            Do::Resume => container.resume().await,
            Do::Signal => container.signal(Signal::new(10).unwrap()).await,
            Do::Ends => {
                self.bench.agent.end(&ProcessRef::init(&id(name)), ExitStatus(3));
                container.wait().await.map(|status| assert_eq!(status, ExitStatus(3)))
            }
            Do::Stop => container.stop().await.map(drop),
            Do::Delete => container.delete().await,
        }
    }

    async fn step(&self, step: &Step) -> (bool, Option<bool>) {
        if let Some(fault) = step.fault {
            self.bench.agent.fail_next(fault);
        }
        let second = async {
            match step.second {
                Some(second) => Some(self.carry_out(second, self.execs + 1).await.is_ok()),
                None => None,
            }
        };
        let results = tokio::join!(self.carry_out(step.first, self.execs), second);
        self.bench.agent.heal();
        (results.0.is_ok(), results.1)
    }
}

impl StateMachineTest for System {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.unwrap();
        let mut bench = Bench::new(FakeHypervisor::default(), FakeAgent::new());
        // Or a call of a search could meet the fault that is meant for an operation.
        bench.spec.timing.ghost = Duration::ZERO;
        let sandbox = runtime.block_on(async {
            let sandbox = bench.sandbox().await;
            // The owner's own call comes first, or it would meet the first fault.
            while bench.agent.calls().iter().all(|(call, _)| *call != Call::GetOOMEvent) {
                tokio::task::yield_now().await;
            }
            sandbox
        });
        let sandbox = Some(sandbox.unwrap());
        Self { runtime, bench, sandbox, model: Model::default(), execs: 0 }
    }

    fn apply(mut system: Self, after: &Model, step: Step) -> Self {
        let (first, second) = system.runtime.block_on(system.step(&step));
        if step.fault.is_none() {
            let allowed = |(name, what)| system.model.after(name, what).is_some();
            assert_eq!(first, allowed(step.first), "{step:?}");
            assert_eq!(second, step.second.map(allowed), "{step:?}");
        }
        system.execs += 2;
        system.model = after.clone();
        let states: BTreeMap<_, _> =
            system.model.0.iter().map(|(name, known)| (id(NAMES[*name]), known.state)).collect();
        let status = system.sandbox.as_ref().unwrap().status();
        let found: BTreeMap<_, _> =
            status.containers.into_iter().map(|(id, known)| (id, known.state)).collect();
        assert_eq!(found, states, "{step:?}");
        let held = system.model.0.iter().filter(|(_, known)| known.held);
        let mut held: Vec<_> = held.map(|(name, _)| id(NAMES[*name])).collect();
        held.sort();
        assert_eq!(system.bench.agent.left().containers, held, "{step:?}");
        assert_eq!(system.bench.disks().len(), if held.is_empty() { 0 } else { 2 }, "{step:?}");
        system
    }

    fn teardown(mut system: Self, _: Model) {
        let sandbox = system.sandbox.take().unwrap();
        system.runtime.block_on(sandbox.stop()).unwrap();
        system.bench.assert_no_sandbox("at the end");
    }
}

fn config() -> ProptestConfig {
    let cases = vc_tests::soak::times(24).try_into().unwrap();
    let usual = ProptestConfig::default();
    // About ten operations in a sequence are drawn again since they are not for the state.
    let max_local_rejects = usual.max_local_rejects.max(u32::saturating_mul(cases, 100));
    ProptestConfig { cases, max_local_rejects, failure_persistence: None, ..usual }
}

prop_state_machine! {
    #![proptest_config(config())]
    #[test]
    fn any_sequence_of_operations_agrees_with_the_table(sequential 1..40 => System);
}
