//! A working model of an agent, for the tests of whoever uses the port.
//!
//! [`FakeAgent`] keeps containers, mounts and processes as a guest does and refuses what a guest
//! refuses; where agents differ it is the stricter one. A test looks at what is [left](FakeAgent::left)
//! in the guest and may have the n-th call go wrong, whichever that is:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use std::num::NonZeroU32;
//! use std::time::Duration;
//! use vc_agent::fake::{FakeAgent, Left};
//! use vc_agent::{AgentError, CreateSandbox, Guest};
//! use vc_types::Deadline;
//!
//! /// What is under test: it must leave nothing behind when it fails.
//! async fn prepare(agent: &impl Guest) -> Result<(), AgentError> {
//!     let deadline = Deadline::after(Duration::from_secs(10));
//!     let id = "s1".parse().expect("an id");
//!     let sandbox = CreateSandbox::new(id);
//!     agent.create_sandbox(&sandbox, deadline).await?;
//!     if let Err(error) = agent.check(deadline).await {
//!         agent.destroy_sandbox(deadline).await?;
//!         return Err(error);
//!     }
//!     Ok(())
//! }
//!
//! for n in (1..).filter_map(NonZeroU32::new) {
//!     let agent = FakeAgent::failing_at(n);
//!     let prepared = prepare(&agent).await;
//!     if !agent.has_failed() {
//!         assert_eq!(n.get(), 3, "two calls can fail");
//!         break;
//!     }
//!     assert!(prepared.is_err());
//!     assert_eq!(agent.left(), Left::default(), "after call {n} failed");
//! }
//! # }
//! ```

mod connector;
mod containers;
mod control;
mod fault;
mod files;
mod guest;
mod mounts;
mod net;
mod process;
mod world;

pub use connector::FakeConnector;
pub use control::FakeAgent;
pub use fault::Fault;
pub use process::Program;
pub use world::Left;
