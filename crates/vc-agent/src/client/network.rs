//! The guest's network, over ttrpc.

use std::net::IpAddr;

use vc_agent_protocol::agent::{
    ARPNeighbors, AddARPNeighborsRequest, Empty, GetIPTablesRequest, GetIPTablesResponse, Interfaces,
    ListInterfacesRequest, ListRoutesRequest, Routes, SetIPTablesRequest, SetIPTablesResponse,
    UpdateInterfaceRequest, UpdateRoutesRequest,
};
use vc_agent_protocol::types::{
    ARPNeighbor as NeighborMessage, IPAddress, IPFamily, Interface as InterfaceMessage, Route as RouteMessage,
};
use vc_types::Deadline;

use super::Client;
use super::fault::Fault;
use crate::{AgentError, Call, Interface, IpFamily, IpNetwork, Neighbor, Network, Route};

impl Network for Client {
    async fn update_interface(
        &self,
        interface: &Interface,
        deadline: Deadline,
    ) -> Result<Interface, AgentError> {
        let call = Call::UpdateInterface;
        let message = UpdateInterfaceRequest {
            interface: Some(interface_to_wire(interface)).into(),
            ..Default::default()
        };
        let answer: InterfaceMessage = self.calls.ask(call, &message, Some(deadline)).await?;
        interface_from_wire(answer).map_err(|fault| fault.into_error(call))
    }

    async fn interfaces(&self, deadline: Deadline) -> Result<Vec<Interface>, AgentError> {
        let call = Call::ListInterfaces;
        let answer: Interfaces = self.calls.ask(call, &ListInterfacesRequest::new(), Some(deadline)).await?;
        let list: Result<_, Fault> = answer.interfaces.into_iter().map(interface_from_wire).collect();
        list.map_err(|fault| fault.into_error(call))
    }

    async fn update_routes(&self, routes: &[Route], deadline: Deadline) -> Result<Vec<Route>, AgentError> {
        let call = Call::UpdateRoutes;
        let routes = Routes { routes: routes.iter().map(route_to_wire).collect(), ..Default::default() };
        let message = UpdateRoutesRequest { routes: Some(routes).into(), ..Default::default() };
        let answer = self.calls.ask(call, &message, Some(deadline)).await?;
        routes_from_wire(answer).map_err(|fault| fault.into_error(call))
    }

    async fn routes(&self, deadline: Deadline) -> Result<Vec<Route>, AgentError> {
        let call = Call::ListRoutes;
        let answer = self.calls.ask(call, &ListRoutesRequest::new(), Some(deadline)).await?;
        routes_from_wire(answer).map_err(|fault| fault.into_error(call))
    }

    async fn add_neighbors(&self, neighbors: &[Neighbor], deadline: Deadline) -> Result<(), AgentError> {
        let list = neighbors.iter().map(neighbor_to_wire).collect();
        let neighbors = ARPNeighbors { arp_neighbors: list, ..Default::default() };
        let message = AddARPNeighborsRequest { neighbors: Some(neighbors).into(), ..Default::default() };
        self.calls.ask::<Empty>(Call::AddARPNeighbors, &message, Some(deadline)).await.map(drop)
    }

    async fn iptables(&self, family: IpFamily, deadline: Deadline) -> Result<Vec<u8>, AgentError> {
        let message = GetIPTablesRequest { is_ipv6: family == IpFamily::V6, ..Default::default() };
        let answer: GetIPTablesResponse = self.calls.ask(Call::GetIPTables, &message, Some(deadline)).await?;
        Ok(answer.data)
    }

    async fn set_iptables(
        &self,
        family: IpFamily,
        rules: &[u8],
        deadline: Deadline,
    ) -> Result<Vec<u8>, AgentError> {
        let is_ipv6 = family == IpFamily::V6;
        let message = SetIPTablesRequest { is_ipv6, data: rules.to_vec(), ..Default::default() };
        let answer: SetIPTablesResponse = self.calls.ask(Call::SetIPTables, &message, Some(deadline)).await?;
        Ok(answer.data)
    }
}

fn family_to_wire(family: IpFamily) -> IPFamily {
    match family {
        IpFamily::V4 => IPFamily::v4,
        IpFamily::V6 => IPFamily::v6,
    }
}

fn address_to_wire(address: IpAddr, mask: String) -> IPAddress {
    let family = family_to_wire(IpFamily::of(address)).into();
    IPAddress { family, address: address.to_string(), mask, ..Default::default() }
}

fn interface_to_wire(interface: &Interface) -> InterfaceMessage {
    let addresses = interface.addresses.iter();
    InterfaceMessage {
        device: interface.device.clone(),
        name: interface.name.clone(),
        ip_addresses: addresses.map(|net| address_to_wire(net.address(), net.length().to_string())).collect(),
        mtu: interface.mtu,
        hw_addr: interface.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        device_path: interface.pci.as_ref().map(ToString::to_string).unwrap_or_default(),
        type_: interface.kind.clone(),
        raw_flags: interface.flags,
        ..Default::default()
    }
}

fn interface_from_wire(message: InterfaceMessage) -> Result<Interface, Fault> {
    let network = |address: IPAddress| parse(&format!("{}/{}", address.address, address.mask));
    Ok(Interface {
        addresses: message.ip_addresses.into_iter().map(network).collect::<Result<_, _>>()?,
        // Hardware addresses of other lengths belong to interfaces that the host did not make.
        mac: message.hw_addr.parse().ok(),
        pci: if message.device_path.is_empty() { None } else { Some(parse(&message.device_path)?) },
        device: message.device,
        name: message.name,
        mtu: message.mtu,
        kind: message.type_,
        flags: message.raw_flags,
    })
}

fn route_to_wire(route: &Route) -> RouteMessage {
    let text = |address: Option<IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    RouteMessage {
        dest: route.destination.map(|net| net.to_string()).unwrap_or_default(),
        gateway: text(route.gateway),
        device: route.device.clone(),
        source: text(route.source),
        scope: route.scope.into(),
        family: family_to_wire(route.family).into(),
        flags: route.flags,
        mtu: route.mtu,
        ..Default::default()
    }
}

fn routes_from_wire(message: Routes) -> Result<Vec<Route>, Fault> {
    message.routes.into_iter().map(route_from_wire).collect()
}

fn route_from_wire(message: RouteMessage) -> Result<Route, Fault> {
    let address = |text: &str| if text.is_empty() { Ok(None) } else { parse(text).map(Some) };
    let family = match message.family.enum_value() {
        Ok(IPFamily::v4) => IpFamily::V4,
        Ok(IPFamily::v6) => IpFamily::V6,
        Err(number) => return Err(Fault::Malformed(format!("{number} is no family of addresses"))),
    };
    Ok(Route {
        family,
        destination: destination(&message.dest)?,
        gateway: address(&message.gateway)?,
        source: address(&message.source)?,
        device: message.device,
        scope: u8::try_from(message.scope)
            .map_err(|_| Fault::Malformed(format!("{} is no scope of a route", message.scope)))?,
        flags: message.flags,
        mtu: message.mtu,
    })
}

/// Agents write a default route as nothing or as `0.0.0.0/0`, and a single host without a length.
fn destination(text: &str) -> Result<Option<IpNetwork>, Fault> {
    if matches!(text, "" | "default") {
        return Ok(None);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNetwork::new(address, if address.is_ipv4() { 32 } else { 128 }));
    }
    let network: IpNetwork = parse(text)?;
    Ok(Some(network).filter(|network| network.length() > 0))
}

fn neighbor_to_wire(neighbor: &Neighbor) -> NeighborMessage {
    NeighborMessage {
        to_ip_address: Some(address_to_wire(neighbor.address, String::new())).into(),
        device: neighbor.device.clone(),
        lladdr: neighbor.mac.to_string(),
        state: neighbor.state.into(),
        flags: neighbor.flags.into(),
        ..Default::default()
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Fault> {
    text.parse().map_err(|error: T::Err| Fault::Malformed(error.to_string()))
}
