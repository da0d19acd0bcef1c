//! The obligations of [`Network`](crate::Network).

use std::net::{IpAddr, Ipv4Addr};

use vc_types::MacAddress;

use super::Fixture;
use crate::{Agent, AgentError, Interface, IpFamily, IpNetwork, Neighbor, Route};

/// The scope of a route to what is on the link (`RT_SCOPE_LINK`, rtnetlink(7)).
const LINK: u8 = 253;

/// A neighbour that stays (`NUD_PERMANENT`, rtnetlink(7)).
const PERMANENT: u16 = 0x80;

/// The loopback interface is up and has its address.
///
/// # Panics
/// When the obligation is not met.
pub async fn the_loopback_is_there(agent: &impl Agent, fixture: &impl Fixture) {
    let interfaces = agent.interfaces(fixture.deadline()).await.expect("the agent lists them");
    let loopback = interfaces.iter().find(|interface| interface.name == "lo").expect("lo is listed");
    let addresses = &loopback.addresses;
    assert!(addresses.iter().any(|net| net.address() == IpAddr::V4(Ipv4Addr::LOCALHOST)), "{addresses:?}");
}

/// An interface that is not there is not updated.
///
/// # Panics
/// When the obligation is not met.
pub async fn an_unknown_interface_is_refused(agent: &impl Agent, fixture: &impl Fixture) {
    let mac = Some(MacAddress([2, 0, 0, 0, 0, 0xee]));
    let interface = Interface { name: "eth9".to_owned(), mac, mtu: 1500, ..Interface::default() };
    let updated = agent.update_interface(&interface, fixture.deadline()).await;
    assert!(matches!(updated, Err(AgentError::Refused { .. })), "{updated:?}");
}

/// A route that was set is listed; one over an interface that is not there is refused.
///
/// # Panics
/// When the obligation is not met.
pub async fn routes_are_set_and_listed(agent: &impl Agent, fixture: &impl Fixture) {
    let destination = IpNetwork::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 0)), 24);
    let route = Route {
        family: IpFamily::V4,
        destination,
        gateway: None,
        device: "lo".to_owned(),
        source: None,
        scope: LINK,
        flags: 0,
        mtu: 0,
    };
    let routes = [route.clone()];
    agent.update_routes(&routes, fixture.deadline()).await.expect("the route is set");
    let listed = agent.routes(fixture.deadline()).await.expect("the agent lists them");
    let found = listed.iter().any(|known| known.destination == destination && known.device == "lo");
    assert!(found, "{listed:?}");
    let nowhere = [Route { device: "vc-none0".to_owned(), ..route }];
    let refused = agent.update_routes(&nowhere, fixture.deadline()).await;
    assert!(matches!(refused, Err(AgentError::Refused { .. })), "{refused:?}");
}

/// Neighbours are taken; those of an interface that is not there are refused.
///
/// # Panics
/// When the obligation is not met.
pub async fn neighbors_are_taken(agent: &impl Agent, fixture: &impl Fixture) {
    let neighbor = Neighbor {
        address: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
        mac: MacAddress([2, 0, 0, 0, 0, 7]),
        device: "lo".to_owned(),
        state: PERMANENT,
        flags: 0,
    };
    let taken = agent.add_neighbors(std::slice::from_ref(&neighbor), fixture.deadline()).await;
    taken.expect("the neighbour is taken");
    let nowhere = Neighbor { device: "vc-none0".to_owned(), ..neighbor };
    let refused = agent.add_neighbors(&[nowhere], fixture.deadline()).await;
    assert!(matches!(refused, Err(AgentError::Refused { .. })), "{refused:?}");
}

/// Where the guest has a packet filter, its rules can be read and what are none are refused; where it
/// has none, it says so.
///
/// # Panics
/// When the obligation is not met.
pub async fn the_packet_filter_is_there_or_told_missing(agent: &impl Agent, fixture: &impl Fixture) {
    let read = agent.iptables(IpFamily::V4, fixture.deadline()).await;
    let missing =
        |error: &AgentError| matches!(error, AgentError::Refused { .. } | AgentError::Unimplemented { .. });
    assert!(read.as_ref().map_or_else(missing, |_| true), "{read:?}");
    let set = agent.set_iptables(IpFamily::V4, b"no rules\n", fixture.deadline()).await;
    assert!(set.as_ref().is_err_and(missing), "{set:?}");
}
