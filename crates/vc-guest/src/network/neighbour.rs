//! AddARPNeighbors: hardware addresses that nobody has to ask for.

use super::error::NetworkError;
use super::interface::{failed, index_of, links, open};
use super::text;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use std::net::IpAddr;
use vc_agent_protocol::types::ARPNeighbor;

/// Adds or replaces each of `neighbours`.
pub(crate) fn add_neighbours(neighbours: &[ARPNeighbor]) -> Result<(), NetworkError> {
    let links = links()?;
    let mut netlink = open()?;
    for neighbour in neighbours {
        let address = text::ip(&neighbour.to_ip_address.address)?;
        let mut message = NeighbourMessage::default();
        message.header.family = text::family(address);
        message.header.ifindex = index_of(&links, &neighbour.device)?;
        let state =
            u16::try_from(neighbour.state).map_err(|_| NetworkError::Range("the state of a neighbour"))?;
        message.header.state = if state == 0 { NeighbourState::Permanent } else { state.into() };
        let flags =
            u8::try_from(neighbour.flags).map_err(|_| NetworkError::Range("the flags of a neighbour"))?;
        message.header.flags = NeighbourFlags::from_bits_truncate(flags);
        message.attributes.push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        }));
        if !neighbour.lladdr.is_empty() {
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(text::hardware(&neighbour.lladdr)?));
        }
        let added = netlink.change(Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE);
        failed("add the neighbour", &address.to_string(), added)?;
    }
    Ok(())
}
