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

mod container;
mod error;
mod guest_spec;
mod owner;
mod runtime_dir;
mod sandbox;
mod state;
mod timing;
mod undo;

pub use container::{Container, ContainerSpec, Stream};
pub use error::{Cause, Leftover, OperationError, Step};
pub use guest_spec::{GuestFeatures, SpecError, guest_spec};
pub use sandbox::{Sandbox, SandboxSpec};
pub use state::{ContainerStatus, Op, Refused, SandboxStatus, State};
pub use timing::Timing;
