//! The agent of a machine, as the host sees it: what can be asked of it ([`Guest`], [`Containers`],
//! [`Processes`], [`Streams`], all of them together [`Agent`]), what it is told ([`CreateSandbox`],
//! [`CreateContainer`], [`Storage`]), and what can go wrong ([`AgentError`]).
//!
//! Feature `client` (default) brings the ttrpc client, feature `fake` a model of an agent for tests and
//! the conformance suite. The README has an example.
#![forbid(unsafe_code)]

mod agent;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "fake")]
pub mod conformance;
mod error;
#[cfg(feature = "fake")]
pub mod fake;
mod process;
mod request;
mod storage;

#[cfg(feature = "client")]
pub use client::{Client, Connector};

pub use agent::{Agent, Connect, Containers, Guest, Processes, Streams};
pub use error::{AgentError, Call};
pub use process::{ExitStatus, InvalidSignal, ProcessRef, Signal, SignalTarget, TerminalSize};
pub use request::{CreateContainer, CreateSandbox};
pub use storage::{Storage, StorageDriver};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
