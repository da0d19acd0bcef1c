//! The ttrpc client: drives `vc-guest` and Kata's own agent alike.
//!
//! Two connections serve one agent: one for calls, one for the data of streams, so that a signal is
//! never queued behind megabytes of somebody's standard input (with 4 containers that copy 4 MiB each,
//! the slowest health checks take 12 to 20 ms instead of 80 to 96). Every request runs as a task of its
//! own, because ttrpc closes the connection when a request is dropped while it is being written; so
//! dropping a future of the port never harms the calls of others.

mod announcement;
mod connector;
mod containers;
mod dial;
mod events;
mod fault;
mod guard;
mod guest;
mod line;
mod link;
mod message;
mod network;
mod processes;
mod stats;
mod streams;
mod system;
mod volumes;
mod wait;

pub use connector::Connector;

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use vc_types::ContainerId;

use events::Events;
use line::Line;
use wait::Waits;

/// The most bytes of a stream that one message carries, either way.
pub const MAX_CHUNK: u32 = 1024 * 1024;

/// An agent that answered; made by [`Connector`].
///
/// A lost connection is made anew for the next call. A call that was under way is made again by itself
/// when twice is as good as once; else it fails as [`Disconnected`](crate::AgentError::Disconnected).
///
/// Dropping it closes its connections. The guest goes on without it.
#[derive(Debug)]
pub struct Client {
    calls: Line,
    streams: Line,
    waits: Waits,
    events: Events,
    created: Created,
}

impl Client {
    fn new(calls: Line, streams: Line) -> Self {
        Self {
            calls,
            streams,
            waits: Waits::default(),
            events: Events::default(),
            created: Created::default(),
        }
    }
}

/// The containers that the guest has, or may have, by this client's doing.
///
/// Kata's agent 4.1 destroys a healthy container when another of its id is created; so a second
/// create never reaches the wire.
#[derive(Debug, Default)]
struct Created(Mutex<HashSet<ContainerId>>);

impl Created {
    /// Notes `id`; tells whether it is new.
    fn insert(&self, id: &ContainerId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone())
    }

    fn remove(&self, id: &ContainerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}
