//! Waiting for processes: the wire tells an exit status once, the port to everyone who asks.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use vc_types::ContainerId;

use super::fault::Fault;
use crate::{AgentError, Call, ExitStatus, ProcessRef};

/// How many executed processes are remembered after their end.
const MOST_KEPT: u64 = 512;

type Outcome = Option<Result<ExitStatus, Fault>>;

/// The waits under way, and the exit statuses they brought.
#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    waits: HashMap<ProcessRef, Wait>,
    started: u64,
}

#[derive(Debug)]
struct Wait {
    /// How many were started before this one.
    number: u64,
    outcome: watch::Receiver<Outcome>,
}

impl Waits {
    /// The exit status of `process`; `ask` asks the agent for it, if nobody did so far.
    ///
    /// # Cancel safety
    /// Nothing is lost: the status is kept for the next one who asks.
    pub(super) async fn wait<F>(
        &self,
        process: &ProcessRef,
        ask: impl FnOnce() -> F,
    ) -> Result<ExitStatus, AgentError>
    where
        F: Future<Output = Result<ExitStatus, Fault>> + Send + 'static,
    {
        let mut outcome = self.join(process, ask);
        let outcome = match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        };
        outcome.unwrap_or(Err(Fault::Disconnected)).map_err(|fault| fault.into_error(Call::WaitProcess))
    }

    /// Forgets the processes of `container`: it is gone, or another gets its name.
    pub(super) fn forget(&self, container: &ContainerId) {
        self.known().waits.retain(|process, _| process.container != *container);
    }

    /// Forgets `process`, whose name another has now.
    pub(super) fn forget_process(&self, process: &ProcessRef) {
        self.known().waits.remove(process);
    }

    fn join<F>(&self, process: &ProcessRef, ask: impl FnOnce() -> F) -> watch::Receiver<Outcome>
    where
        F: Future<Output = Result<ExitStatus, Fault>> + Send + 'static,
    {
        let mut known = self.known();
        if let Some(wait) = known.waits.get(process)
            && !wait.failed()
        {
            return wait.outcome.clone();
        }
        let asked = ask();
        let (sender, outcome) = watch::channel(None);
        tokio::spawn(async move {
            sender.send_replace(Some(asked.await));
        });
        let number = known.started;
        known.started += 1;
        known.waits.insert(process.clone(), Wait { number, outcome: outcome.clone() });
        known.waits.retain(|process, wait| process.exec.is_none() || wait.is_kept(number));
        outcome
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    fn failed(&self) -> bool {
        matches!(*self.outcome.borrow(), Some(Err(_)))
    }

    fn is_kept(&self, newest: u64) -> bool {
        self.outcome.borrow().is_none() || newest - self.number < MOST_KEPT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn exec(name: &str) -> ProcessRef {
        ProcessRef { container: "c".parse().unwrap(), exec: Some(name.parse().unwrap()) }
    }

    #[tokio::test]
    async fn many_share_one_question_and_a_dropped_wait_loses_nothing() {
        let waits = Waits::default();
        let asked = AtomicU32::new(0);
        let (end, ended) = tokio::sync::oneshot::channel();
        let ended = Arc::new(Mutex::new(Some(ended)));
        let ask = || {
            asked.fetch_add(1, Ordering::Relaxed);
            let ended = ended.lock().unwrap().take().unwrap();
            async move { ended.await.unwrap() }
        };
        let process = exec("e");
        assert!(futures::poll!(std::pin::pin!(waits.wait(&process, ask))).is_pending());
        let both = async { tokio::join!(waits.wait(&process, ask), waits.wait(&process, ask)) };
        end.send(Ok(ExitStatus(7))).unwrap();
        let (first, second) = both.await;
        assert_eq!((first.unwrap(), second.unwrap()), (ExitStatus(7), ExitStatus(7)));
        assert_eq!(waits.wait(&process, ask).await.unwrap(), ExitStatus(7));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_failure_is_not_kept_and_a_new_container_starts_clean() {
        let waits = Waits::default();
        let process = exec("e");
        let answer = |answer: Result<ExitStatus, Fault>| move || async move { answer };
        let failed = waits.wait(&process, answer(Err(Fault::Disconnected))).await;
        assert!(matches!(failed, Err(AgentError::Disconnected { call: Call::WaitProcess })));
        assert_eq!(waits.wait(&process, answer(Ok(ExitStatus(1)))).await.unwrap(), ExitStatus(1));
        waits.forget(&process.container);
        assert_eq!(waits.wait(&process, answer(Ok(ExitStatus(2)))).await.unwrap(), ExitStatus(2));
    }

    #[tokio::test]
    async fn ended_processes_do_not_pile_up() {
        let waits = Waits::default();
        let init = ProcessRef::init(&"c".parse().unwrap());
        let answer = || async { Ok(ExitStatus(0)) };
        waits.wait(&init, answer).await.unwrap();
        for n in 0..3 * MOST_KEPT {
            waits.wait(&exec(&n.to_string()), answer).await.unwrap();
        }
        let known = waits.known();
        assert!(known.waits.len() <= usize::try_from(MOST_KEPT).unwrap() + 1, "{}", known.waits.len());
        assert!(known.waits.contains_key(&init));
    }
}
