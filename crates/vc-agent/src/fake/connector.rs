//! Connecting to the fake.

use std::io::{Error, ErrorKind};
use std::time::Instant;

use vc_types::{AgentAddress, Deadline};

use super::FakeAgent;
use crate::{AgentError, Connect, Guest};

/// Connects to one fake agent, whatever the address. It is a health check to the agent, and may go
/// wrong as any other call.
#[derive(Clone, Debug, Default)]
pub struct FakeConnector(FakeAgent);

impl FakeConnector {
    /// A connector to `agent`.
    pub fn new(agent: &FakeAgent) -> Self {
        Self(agent.clone())
    }
}

impl Connect for FakeConnector {
    type Agent = FakeAgent;

    async fn connect(&self, address: &AgentAddress, deadline: Deadline) -> Result<FakeAgent, AgentError> {
        let start = Instant::now();
        match self.0.check(deadline).await {
            Ok(()) => Ok(self.0.clone()),
            Err(error) => {
                let last = Error::new(ErrorKind::TimedOut, error);
                let (address, waited) = (address.to_string(), start.elapsed());
                Err(AgentError::Unreachable { address, waited, last })
            }
        }
    }
}
