//! The agent of a machine, as the host sees it: what can be asked of it ([`Guest`], [`System`],
//! [`Network`], [`Volumes`], [`Containers`], [`Processes`], [`Streams`], all of them together
//! [`Agent`]), what it is told, and what can go wrong ([`AgentError`]).
//!
//! Feature `client` (default) brings the ttrpc client, `io` the standard streams as `AsyncRead` and
//! `AsyncWrite`, `fake` a model of an agent for tests and the conformance suite. The README has an
//! example.
#![forbid(unsafe_code)]

mod call;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "fake")]
pub mod conformance;
mod details;
mod error;
#[cfg(feature = "fake")]
pub mod fake;
#[cfg(feature = "io")]
pub mod io;
mod network;
mod port;
mod process;
mod request;
mod stats;
mod storage;
mod volume;

#[cfg(feature = "client")]
pub use client::{Client, Connector};

pub use call::Call;
pub use details::{Diagnostic, Feature, GuestDetails, Online};
pub use error::AgentError;
pub use network::{Interface, InvalidNetwork, IpFamily, IpNetwork, Neighbor, Route};
pub use port::{Agent, Connect, Containers, Guest, Network, Processes, Streams, System, Volumes};
pub use process::{ExitStatus, InvalidSignal, ProcessRef, Signal, SignalTarget, TerminalSize};
pub use request::{CreateContainer, CreateSandbox, Device, ExecProcess, KernelModule};
pub use stats::{
    BlockIo, BlockIoStats, ContainerStats, CpuStats, HugePageStats, MemoryStats, MemoryUsage, NetworkStats,
    PidsStats, Traffic,
};
pub use storage::{FsGroup, FsGroupPolicy, Storage, StorageDriver};
pub use volume::{CopyFile, FileContent, VolumeStats, VolumeUsage};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
