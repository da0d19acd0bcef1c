//! The machine and the agent in it, as child tasks use them.

use std::sync::Arc;
use std::time::Duration;

use vc_agent::{Agent, AgentError};
use vc_hypervisor::Machine;
use vc_types::ContainerId;

use crate::devices::Devices;
use crate::error::Cause;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::passing::Passing;
use crate::record::{ContainerRecord, SandboxRecord};
use crate::sizing::Sizing;
use crate::storage::{Shares, Volumes};
use crate::timing::Timing;

/// How long a broken connection may take to turn out as the end of the machine.
const GRACE: Duration = Duration::from_secs(1);

/// What a child task works with. Clones are the same machine.
pub(crate) struct Guest<M, A> {
    pub(crate) machine: Arc<M>,
    pub(crate) agent: Arc<A>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) shares: Arc<Shares>,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) sizing: Arc<Sizing>,
    pub(crate) metrics: Metrics,
    pub(crate) ledger: Ledger,
    pub(crate) timing: Timing,
    /// Whether containers share one pid namespace.
    pub(crate) shared_pid_namespace: bool,
    /// How devices of the host are passed.
    pub(crate) passing: Arc<Passing>,
}

impl<M, A> Clone for Guest<M, A> {
    fn clone(&self) -> Self {
        Self {
            machine: self.machine.clone(),
            agent: self.agent.clone(),
            devices: self.devices.clone(),
            shares: self.shares.clone(),
            volumes: self.volumes.clone(),
            sizing: self.sizing.clone(),
            metrics: self.metrics.clone(),
            ledger: self.ledger.clone(),
            timing: self.timing,
            shared_pid_namespace: self.shared_pid_namespace,
            passing: self.passing.clone(),
        }
    }
}

impl<M: Machine, A: Agent> Guest<M, A> {
    /// Writes a change down, with the devices as they are now.
    pub(crate) async fn note(&self, change: impl FnOnce(&mut SandboxRecord) + Send) -> Result<(), Cause> {
        self.ledger
            .write(|record| {
                record.devices = self.devices.snapshot();
                record.handle = Some(self.machine.handle());
                change(record);
            })
            .await
    }

    /// Writes a change of one container down, if it is known.
    pub(crate) async fn note_container(
        &self,
        id: &ContainerId,
        change: impl FnOnce(&mut ContainerRecord) + Send,
    ) -> Result<(), Cause> {
        self.note(|record| {
            if let Some(known) = record.container(id) {
                change(known);
            }
        })
        .await
    }

    /// As [`Guest::note_container`], when the change is the past and cannot be refused any more.
    pub(crate) async fn note_past(&self, id: &ContainerId, change: impl FnOnce(&mut ContainerRecord) + Send) {
        if let Err(cause) = self.note_container(id, change).await {
            tracing::error!(container = %id, %cause, "the record is behind");
        }
    }

    /// Waits for the agent's answer or the end of the machine, which is the better answer when the
    /// connection broke.
    pub(crate) async fn ask<T>(&self, call: impl Future<Output = Result<T, AgentError>>) -> Result<T, Cause> {
        let answer = tokio::select! {
            biased;
            answer = call => answer,
            exit = self.machine.exited() => return Err(Cause::MachineGone(exit)),
        };
        let Err(error @ AgentError::Disconnected { .. }) = answer else { return Ok(answer?) };
        match tokio::time::timeout(GRACE, self.machine.exited()).await {
            Ok(exit) => Err(Cause::MachineGone(exit)),
            Err(_) => Err(error.into()),
        }
    }
}
