//! The port: traits by role, and how one gets hold of an agent.

mod containers;
mod guest;
mod network;
mod processes;
mod streams;
mod system;
mod volumes;

pub use containers::Containers;
pub use guest::Guest;
pub use network::Network;
pub use processes::Processes;
pub use streams::Streams;
pub use system::System;
pub use volumes::Volumes;

use std::future::Future;

use vc_types::{AgentAddress, Deadline};

use crate::AgentError;

/// How to reach the agent of a machine that may still be booting.
pub trait Connect: Send + Sync + 'static {
    /// The agent one gets.
    type Agent: Agent;

    /// Connects and waits until the agent answers a health check.
    ///
    /// # Errors
    /// [`AgentError::Unreachable`] when `deadline` passes first, with the last reason.
    ///
    /// # Cancel safety
    /// Dropping the future drops the attempt; nothing is left in the guest.
    fn connect(
        &self,
        address: &AgentAddress,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Self::Agent, AgentError>> + Send;
}

/// Everything an agent does. Calls may run at the same time; a slow one never holds up another.
pub trait Agent: Guest + System + Network + Volumes + Containers + Processes + Streams + 'static {}

impl<T: Guest + System + Network + Volumes + Containers + Processes + Streams + 'static> Agent for T {}
