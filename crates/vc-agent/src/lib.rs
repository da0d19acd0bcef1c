//! The agent of a machine, as the host sees it: what can be asked of it ([`Guest`], [`Containers`],
//! [`Processes`], [`Streams`]) and what it is told ([`CreateSandbox`], [`CreateContainer`], [`Storage`]).
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
