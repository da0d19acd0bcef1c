//! Taking over a sandbox whose owner has died: it goes on, or it is cleaned up.
//!
//! The record says what there should be; machine and guest are asked what there is. Where they differ, what
//! there is counts: a container that the guest has lost is stopped, a device that nobody uses is unplugged, a
//! container that nobody was told of is removed. Without machine or guest there is nothing to go on with, and
//! whatever is left of them is ended.

mod reconcile;

use std::collections::BTreeMap;
use std::sync::Arc;

use vc_agent::{AgentError, Connect, ExitStatus};
use vc_hypervisor::{Hypervisor, LaunchError, Machine};
use vc_types::{ContainerId, Deadline, HostPath};

use crate::devices::Devices;
use crate::error::{Leftover, Step};
use crate::guest::Guest;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::record::SandboxRecord;
use crate::runtime_dir::RuntimeDir;
use crate::sandbox::Sandbox;
use crate::sizing::Sizing;
use crate::storage::{LeftShares, Shares, Volumes, clean_up_shares};
use crate::store::{Store, StoreError};
use crate::timing::Timing;

/// What became of a sandbox whose owner had died.
#[derive(Debug)]
pub enum Recovered {
    /// Machine and guest live, and this process owns the sandbox now.
    Resumed(Sandbox),
    /// It could not go on. Nothing of it is left but what is told.
    CleanedUp(CleanedUp),
}

/// A sandbox that could not go on.
#[derive(Debug)]
pub struct CleanedUp {
    /// Why not.
    pub reason: Lost,
    /// Its containers, and how each ended if that was known.
    pub containers: BTreeMap<ContainerId, Option<ExitStatus>>,
    /// What could not be cleaned up. If this is not empty, the record stays, and recovery can be tried again.
    pub left: Vec<Leftover>,
}

/// Why a sandbox cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// Its owner died before it was complete.
    #[error("its owner died before it was complete")]
    Incomplete,
    /// The machine has ended.
    #[error("its machine has ended")]
    Machine,
    /// The machine cannot be reached.
    #[error("its machine cannot be reached")]
    Unreachable(#[from] LaunchError),
    /// The guest does not answer.
    #[error("its guest does not answer")]
    Guest(#[from] AgentError),
}

impl Sandbox {
    /// Takes over the sandbox that is recorded in `state_dir`.
    ///
    /// `connector` should not wait for the agent to announce itself, which it did long ago.
    ///
    /// # Errors
    /// [`StoreError::Owned`] while its owner lives, and any other [`StoreError`] when there is no record that
    /// can be used; then nothing has changed, but that a directory without a record is gone on
    /// [`StoreError::NoRecord`]: its owner died before it had begun, or when it had cleaned up.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the sandbox for another recovery, or half cleaned up for another one.
    pub async fn recover<H: Hypervisor, C: Connect>(
        hypervisor: &H,
        connector: &C,
        state_dir: &HostPath,
        timing: Timing,
    ) -> Result<Recovered, StoreError> {
        let (store, record) = Store::take_over(state_dir)?;
        match reach(hypervisor, connector, &record, &timing).await {
            Ok((mut found, agent)) => {
                let spec = record.machine.spec();
                let metrics = Metrics::default();
                let ledger = Ledger::new(store, record.clone(), metrics.clone());
                let guest = Guest {
                    machine: found.machine.clone(),
                    agent: Arc::new(agent),
                    devices: Arc::new(Devices::new(record.devices.clone())),
                    shares: Arc::new(Shares::new(&spec.runtime_dir, record.sharing.clone(), ledger.clone())),
                    volumes: Arc::new(Volumes::new(spec.id.clone(), record.volumes.clone())),
                    sizing: Arc::new(Sizing::new(&spec)),
                    metrics,
                    ledger,
                    timing,
                    shared_pid_namespace: record.shared_pid_namespace,
                    passing: Arc::new(record.passing.clone()),
                };
                found.shares = Some(guest.shares.clone());
                guest.resume_shares(&record).await;
                let containers = guest.reconcile(record.containers).await;
                found.is_decided = true;
                let dir = RuntimeDir::adopt(&spec.runtime_dir);
                Ok(Recovered::Resumed(Self::of(guest, dir, (containers, None), &spec.id)))
            }
            Err(reason) => {
                let left = clean_up(hypervisor, &store, &record, &timing).await;
                let exit = |exit: crate::record::ExitRecord| Result::from(exit).ok();
                let containers = record.containers.into_iter();
                let containers = containers.map(|known| (known.id, known.exit.and_then(exit)));
                Ok(Recovered::CleanedUp(CleanedUp { reason, containers: containers.collect(), left }))
            }
        }
    }
}

/// A machine that is being taken over. Dropped before that is decided, it runs on, with what is shared with it: the
/// next recovery is to find them.
struct Found<M: Machine> {
    machine: Arc<M>,
    shares: Option<Arc<Shares>>,
    is_decided: bool,
}

impl<M: Machine> Drop for Found<M> {
    fn drop(&mut self) {
        if !self.is_decided {
            self.machine.let_go();
            self.shares.iter().for_each(|shares| shares.let_go());
        }
    }
}

/// Finds machine and guest again. A machine without its guest ends.
async fn reach<H: Hypervisor, C: Connect>(
    hypervisor: &H,
    connector: &C,
    record: &SandboxRecord,
    timing: &Timing,
) -> Result<(Found<H::Machine>, C::Agent), Lost> {
    let handle = record.handle.as_ref().filter(|_| record.prepared).ok_or(Lost::Incomplete)?;
    let deadline = Deadline::after(timing.launch);
    let machine = hypervisor.reattach(&record.machine.spec(), handle, deadline).await?;
    let machine = Arc::new(machine.ok_or(Lost::Machine)?);
    let mut found = Found { machine: machine.clone(), shares: None, is_decided: false };
    let connect = connector.connect(machine.agent_address(), Deadline::after(timing.request));
    let agent = tokio::select! {
        biased;
        _ = machine.exited() => Err(Lost::Machine),
        agent = connect => agent.map_err(Lost::from),
    };
    found.is_decided = agent.is_err();
    Ok((found, agent?))
}

/// Ends whatever is left, and forgets the sandbox if nothing is.
async fn clean_up<H: Hypervisor>(
    hypervisor: &H,
    store: &Store,
    record: &SandboxRecord,
    timing: &Timing,
) -> Vec<Leftover> {
    let spec = record.machine.spec();
    let mut left = match hypervisor.clean_up(&spec, timing.undo().deadline()).await {
        Ok(()) => {
            let (left, deadline) = (LeftShares::of(record), timing.undo().deadline());
            clean_up_shares(&spec.runtime_dir, &record.sharing, left, deadline).await
        }
        // Its guest may still use what is shared.
        Err(error) => vec![Leftover { step: Step::StopMachine, cause: error.into() }],
    };
    left.extend(Volumes::new(spec.id.clone(), record.volumes.clone()).end().await);
    if let Err(error) = RuntimeDir::adopt(&spec.runtime_dir).remove() {
        let step = Step::RemoveRuntimeDir(spec.runtime_dir.clone());
        left.push(Leftover { step, cause: error.into() });
    }
    if left.is_empty()
        && let Err(error) = store.remove()
    {
        left.push(Leftover { step: Step::Record, cause: error.into() });
    }
    left
}
