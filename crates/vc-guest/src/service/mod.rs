//! The services as the host calls them.

mod agent;
mod connection;
mod connections;
mod frame;
mod health;
mod reading;

pub use connection::Server;
pub use connections::Connections;

use crate::error::CallError;
use crate::guest::Guest;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use vc_agent_protocol::{agent_ttrpc, health_ttrpc};

/// A server of `grpc.AgentService` and `grpc.Health` for `guest`.
pub fn server(guest: Guest) -> Server {
    let mut services = agent_ttrpc::create_agent_service(Arc::new(agent::Agent(guest.clone())));
    services.extend(health_ttrpc::create_health(Arc::new(health::Health)));
    Server::new(guest, services)
}

/// As [`call`], for work that waits for the kernel and not for events.
async fn blocking<T: Send + 'static>(
    method: &'static str,
    work: impl FnOnce() -> Result<T, CallError> + Send + 'static,
) -> ttrpc::Result<T> {
    call(method, async move { tokio::task::spawn_blocking(work).await.unwrap_or(Err(CallError::Panicked)) })
        .await
}

/// Serves a call in a task of its own: a host that goes away does not stop it half-way, and a panic
/// ends this call only.
async fn call<T: Send + 'static>(
    method: &'static str,
    work: impl Future<Output = Result<T, CallError>> + Send + 'static,
) -> ttrpc::Result<T> {
    tracing::debug!(method, "call");
    let result = tokio::spawn(work).await.unwrap_or(Err(CallError::Panicked));
    Ok(result.inspect_err(|error| log_failure(method, error))?)
}

/// As [`call`], for work that neither waits nor changes anything: it is done where it is asked for.
fn at_once<T>(method: &'static str, work: impl FnOnce() -> Result<T, CallError>) -> ttrpc::Result<T> {
    tracing::debug!(method, "call");
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(CallError::Panicked));
    Ok(result.inspect_err(|error| log_failure(method, error))?)
}

fn log_failure(method: &'static str, error: &CallError) {
    tracing::info!(method, error = crate::log::chain(error), "call failed");
}
