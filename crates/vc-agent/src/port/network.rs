//! The guest's network.

use std::future::Future;

use vc_types::Deadline;

use crate::{AgentError, Interface, IpFamily, Neighbor, Route};

/// The guest's network, which its containers share.
///
/// # Errors
/// Any [`AgentError`], of all methods.
///
/// # Cancel safety
/// Dropping any future of this trait abandons the answer, not the call: the guest may still do it.
pub trait Network: Send + Sync {
    /// Names, addresses and brings up the interface that has the hardware address of `interface`;
    /// returns it as it is then.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when the guest has none of that address.
    fn update_interface(
        &self,
        interface: &Interface,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Interface, AgentError>> + Send;

    /// The interfaces there are, the loopback among them.
    ///
    /// # Errors
    /// Any [`AgentError`].
    fn interfaces(
        &self,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Vec<Interface>, AgentError>> + Send;

    /// Replaces the routes of the main table by `routes`; returns those there are then.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when one cannot be, as for a device that is not there.
    fn update_routes(
        &self,
        routes: &[Route],
        deadline: Deadline,
    ) -> impl Future<Output = Result<Vec<Route>, AgentError>> + Send;

    /// The routes of the main table.
    ///
    /// # Errors
    /// Any [`AgentError`].
    fn routes(&self, deadline: Deadline) -> impl Future<Output = Result<Vec<Route>, AgentError>> + Send;

    /// Tells the guest the hardware addresses of its neighbours, so that it need not ask.
    ///
    /// # Errors
    /// [`AgentError::Refused`] for a device that is not there.
    fn add_neighbors(
        &self,
        neighbors: &[Neighbor],
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), AgentError>> + Send;

    /// The packet filter, as iptables-save(8) prints it.
    ///
    /// # Errors
    /// [`AgentError::Refused`] or [`AgentError::Unimplemented`] by a guest that has none.
    fn iptables(
        &self,
        family: IpFamily,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Vec<u8>, AgentError>> + Send;

    /// Replaces the packet filter by `rules`, as iptables-restore(8) reads them; returns its output.
    ///
    /// # Errors
    /// As of [`Network::iptables`], and [`AgentError::Refused`] for what are no rules.
    fn set_iptables(
        &self,
        family: IpFamily,
        rules: &[u8],
        deadline: Deadline,
    ) -> impl Future<Output = Result<Vec<u8>, AgentError>> + Send;
}
