//! The ports to hypervisor and agent with one call that goes wrong, whatever is behind them: the fakes, or a real
//! machine and the agent in it.

mod agent;
pub(crate) mod life;
mod machine;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use vc_types::Deadline;

pub(crate) use agent::FaultyConnector;
pub(crate) use machine::FaultyHypervisor;

/// How long after its deadline a call is done that is done late.
const LATE: Duration = Duration::from_millis(100);

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is refused; nothing is done.
    Refuse,
    /// It has no answer; nothing is done.
    Hang,
    /// It is done, but its answer comes after the deadline.
    AnswerLate,
    /// It has no answer before its deadline, and is done after that. Only what the guest may do late can meet
    /// this; any other call hangs.
    DoneLate,
    /// What is called goes away first: the machine, or the connection to the agent for this and all later calls.
    Vanish,
}

impl Fault {
    /// What can come to pass without an end to all that comes after.
    pub(crate) const PASSING: [Self; 4] = [Self::Refuse, Self::Hang, Self::AnswerLate, Self::DoneLate];
}

/// Which call goes wrong. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    plan: Arc<Mutex<Plan>>,
    late_is_done: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Plan {
    /// How many calls there are to go until the one that goes wrong.
    next: Option<(u32, Fault)>,
    /// The call that went wrong.
    met: Option<String>,
    /// Whether a call is still to be done after its deadline.
    is_late: bool,
    is_disconnected: bool,
}

impl Faults {
    /// Has the `n`-th call from now on go wrong, counted from 1.
    pub(crate) fn plan(&self, n: u32, fault: Fault) {
        *self.lock() = Plan { next: Some((n, fault)), ..Plan::default() };
    }

    /// No call goes wrong any more.
    pub(crate) fn heal(&self) {
        self.lock().next = None;
    }

    /// The call that went wrong, if it has come to it.
    pub(crate) fn met(&self) -> Option<String> {
        self.lock().met.clone()
    }

    /// Whether the connection to the agent has vanished.
    pub(crate) fn is_disconnected(&self) -> bool {
        self.lock().is_disconnected
    }

    /// Counts a call; says what goes wrong with it.
    fn meet(&self, what: impl std::fmt::Debug) -> Option<Fault> {
        let mut plan = self.lock();
        let (left, fault) = plan.next?;
        plan.next = (left > 1).then_some((left - 1, fault));
        if left > 1 {
            return None;
        }
        plan.met = Some(format!("{what:?}"));
        Some(fault)
    }

    /// Whether the next call goes wrong in this way.
    fn is_next(&self, fault: Fault) -> bool {
        self.lock().next == Some((1, fault))
    }

    /// Does `call` after its deadline.
    fn do_late<T>(&self, deadline: Deadline, call: impl Future<Output = T> + Send + 'static)
    where
        T: Send + 'static,
    {
        self.lock().is_late = true;
        let faults = self.clone();
        tokio::spawn(async move {
            passed(Some(deadline)).await;
            tokio::time::sleep(LATE).await;
            // Nobody waits for its answer.
            drop(call.await);
            faults.lock().is_late = false;
            faults.late_is_done.notify_waiters();
        });
    }

    /// Returns when nothing is still to be done late.
    pub(crate) async fn late_is_done(&self) {
        loop {
            let done = self.late_is_done.notified();
            if !self.lock().is_late {
                return;
            }
            done.await;
        }
    }

    fn disconnect(&self) {
        self.lock().is_disconnected = true;
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap()
    }
}

/// Returns when the deadline has passed; never without one.
async fn passed(deadline: Option<Deadline>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline.remaining()).await,
        None => std::future::pending().await,
    }
}
