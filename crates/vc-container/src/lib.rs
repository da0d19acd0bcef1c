//! The orchestrator: a [`Sandbox`] is one machine and the [`Container`]s in it.
//!
//! ```text
//!  Sandbox, Container (handles) ──requests──> owner (one task) ──child task per operation──┐
//!            ▲                                  │   ▲                                       ▼
//!            └────────── status (watch) ────────┘   └────────────── done ◄──── machine, agent (ports)
//! ```
//!
//! One task owns a sandbox. What takes long (plugging, talking to the guest) runs in child tasks, so
//! that no call waits behind another; what they did comes back to the owner, which alone changes the
//! state. Every step that changed the world pushed its inverse to an undo list first.
#![forbid(unsafe_code)]

mod ahead;
mod annotations;
mod container;
mod devices;
mod error;
mod guest;
mod guest_spec;
mod ledger;
mod limits;
mod metrics;
mod owner;
mod passing;
mod plug;
mod process;
mod record;
mod recover;
mod runtime_dir;
mod sandbox;
mod sizing;
mod state;
mod status;
mod storage;
mod store;
mod timing;
mod undo;

pub use annotations::InvalidAnnotation;
pub use container::{Container, ContainerSpec, ForcedStop, Stream};
pub use error::{Cause, Leftover, OperationError, Step};
pub use guest_spec::{GuestFeatures, SpecError, guest_process, guest_spec};
pub use metrics::StepMetrics;
pub use passing::{PassError, Passing};
pub use process::Process;
pub use record::InvalidRecord;
pub use recover::{CleanedUp, Lost, Recovered};
pub use sandbox::{Sandbox, SandboxSpec};
pub use sizing::{InvalidCpuSet, Size, SizeError};
pub use state::{Ask, Op, Refused, State};
pub use status::{ContainerStatus, SandboxStatus};
pub use storage::{
    ContainerStorage, CopyFailed, ImageFailed, InvalidPageSize, Sharing, StorageError, storage_request,
};
pub use store::StoreError;
pub use timing::Timing;
