//! The machine and the agent in it, as child tasks use them.

use std::sync::Arc;
use std::time::Duration;

use vc_agent::{Agent, AgentError};
use vc_hypervisor::Machine;

use crate::devices::Devices;
use crate::error::Cause;
use crate::metrics::Metrics;
use crate::sizing::Sizing;
use crate::timing::Timing;

/// How long a broken connection may take to turn out as the end of the machine.
const GRACE: Duration = Duration::from_secs(1);

/// What a child task works with. Clones are the same machine.
pub(crate) struct Guest<M, A> {
    pub(crate) machine: Arc<M>,
    pub(crate) agent: Arc<A>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) sizing: Arc<Sizing>,
    pub(crate) metrics: Metrics,
    pub(crate) timing: Timing,
    /// Whether containers share one pid namespace.
    pub(crate) shared_pid_namespace: bool,
}

impl<M, A> Clone for Guest<M, A> {
    fn clone(&self) -> Self {
        Self {
            machine: self.machine.clone(),
            agent: self.agent.clone(),
            devices: self.devices.clone(),
            sizing: self.sizing.clone(),
            metrics: self.metrics.clone(),
            timing: self.timing,
            shared_pid_namespace: self.shared_pid_namespace,
        }
    }
}

impl<M: Machine, A: Agent> Guest<M, A> {
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
