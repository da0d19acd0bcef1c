//! UpdateRoutes and ListRoutes.

use super::error::NetworkError;
use super::interface::{Link, failed, index_of, links, open};
use super::text;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use std::net::IpAddr;
use vc_agent_protocol::types::{IPFamily, Route};

/// Replaces the routes of the main table by `wanted`, and gives those that there are then. The kernel's own,
/// which come and go with the addresses, stay.
pub(crate) fn update_routes(wanted: &[Route]) -> Result<Vec<Route>, NetworkError> {
    let links = links()?;
    let mut new = wanted.iter().map(|route| parse(route, &links)).collect::<Result<Vec<_>, _>>()?;
    // A gateway can be named only once there is a route to it.
    new.sort_by_key(has_gateway);
    let mut netlink = open()?;
    for old in messages()?.into_iter().filter(|old| old.header.protocol != RouteProtocol::Kernel) {
        failed("remove", "a route", netlink.change(Message::DelRoute(old), 0))?;
    }
    for (route, wire) in new.into_iter().zip(0..) {
        let added = netlink.change(Message::NewRoute(route), NLM_F_CREATE | NLM_F_REPLACE);
        failed("add", &format!("route {wire}"), added)?;
    }
    list_routes()
}

/// The routes of the main table.
pub(crate) fn list_routes() -> Result<Vec<Route>, NetworkError> {
    let links = links()?;
    Ok(messages()?.iter().map(|message| describe(message, &links)).collect())
}

fn has_gateway(message: &RouteMessage) -> bool {
    message.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::Gateway(_)))
}

fn messages() -> Result<Vec<RouteMessage>, NetworkError> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let found = failed("list", "the routes", open()?.list(Message::GetRoute(message)))?;
        routes.extend(found.into_iter().filter_map(|message| match message {
            Message::NewRoute(route) if is_of_the_main_table(&route) => Some(route),
            _ => None,
        }));
    }
    Ok(routes)
}

fn is_of_the_main_table(route: &RouteMessage) -> bool {
    route.header.table == RouteHeader::RT_TABLE_MAIN && route.header.kind == RouteType::Unicast
}

fn parse(wire: &Route, links: &[Link]) -> Result<RouteMessage, NetworkError> {
    let destination = (!wire.dest.is_empty()).then(|| text::network(&wire.dest)).transpose()?;
    let gateway = (!wire.gateway.is_empty()).then(|| text::ip(&wire.gateway)).transpose()?;
    let source = (!wire.source.is_empty()).then(|| text::ip(&wire.source)).transpose()?;
    let mut message = RouteMessage::default();
    message.header.address_family = match destination.map(|(address, _)| address).or(gateway).or(source) {
        Some(address) => text::family(address),
        None if wire.family == IPFamily::v6.into() => AddressFamily::Inet6,
        None => AddressFamily::Inet,
    };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    let scope = u8::try_from(wire.scope).map_err(|_| NetworkError::Range("the scope of a route"))?;
    message.header.scope = RouteScope::from(scope);
    message.header.kind = RouteType::Unicast;
    message.header.flags = RouteFlags::from_bits_truncate(wire.flags);
    if let Some((address, length)) = destination {
        message.header.destination_prefix_length = length;
        message.attributes.push(RouteAttribute::Destination(address.into()));
    }
    message.attributes.extend(gateway.map(|address| RouteAttribute::Gateway(address.into())));
    message.attributes.extend(source.map(|address| RouteAttribute::PrefSource(address.into())));
    message.attributes.push(RouteAttribute::Oif(index_of(links, &wire.device)?));
    if wire.mtu > 0 {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(wire.mtu)]));
    }
    Ok(message)
}

fn describe(message: &RouteMessage, links: &[Link]) -> Route {
    let is_v6 = message.header.address_family == AddressFamily::Inet6;
    let mut route = Route {
        scope: u8::from(message.header.scope).into(),
        family: (if is_v6 { IPFamily::v6 } else { IPFamily::v4 }).into(),
        flags: message.header.flags.bits(),
        ..Default::default()
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                let length = message.header.destination_prefix_length;
                route.dest =
                    text_of(address).map(|address| format!("{address}/{length}")).unwrap_or_default();
            }
            RouteAttribute::Gateway(address) => route.gateway = plain(address),
            RouteAttribute::PrefSource(address) => route.source = plain(address),
            RouteAttribute::Oif(index) => {
                let link = links.iter().find(|link| link.index == *index);
                route.device = link.map(|link| link.name.clone()).unwrap_or_default();
            }
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(mtu).unwrap_or_default();
            }
            _ => {}
        }
    }
    route
}

fn mtu(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    }
}

fn plain(address: &RouteAddress) -> String {
    text_of(address).map(|address| address.to_string()).unwrap_or_default()
}

fn text_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
