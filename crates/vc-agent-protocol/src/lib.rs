//! The agent protocol: what the host and the agent in its guest say to each other over ttrpc.
//!
//! Messages stand in [`agent`], [`oci`], [`types`], [`csi`] and [`health`]; the async clients and
//! server traits in [`agent_ttrpc`] and [`health_ttrpc`]. All are generated from the `.proto` files
//! of this crate. The wire is that of Kata Containers' agent (`grpc.AgentService` and `grpc.Health`,
//! as of its release 4.1), so either end may be Kata's own. The README has an example.

mod generated;
#[cfg(feature = "oci-spec")]
pub mod spec;

pub use generated::{agent, agent_ttrpc, csi, health, health_ttrpc, oci, types};

/// The vsock port at which the agent serves the protocol.
pub const AGENT_PORT: u32 = 1024;

/// The vsock port at which the host receives the agent's log, when it asked for one.
pub const LOG_PORT: u32 = 1025;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
