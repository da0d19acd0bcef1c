//! The network of the guest.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use super::world::{Done, refused};
use crate::{Call, Interface, IpFamily, IpNetwork, Neighbor, Route};

#[derive(Debug)]
pub(super) struct Net {
    pub(super) interfaces: Vec<Interface>,
    routes: Vec<Route>,
    pub(super) neighbors: Vec<Neighbor>,
    rules: HashMap<IpFamily, Vec<u8>>,
}

impl Default for Net {
    fn default() -> Self {
        let address = IpNetwork::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8).expect("8 bits of 32");
        let loopback = Interface {
            name: "lo".to_owned(),
            addresses: vec![address],
            mtu: 65_536,
            ..Interface::default()
        };
        Self { interfaces: vec![loopback], routes: Vec::new(), neighbors: Vec::new(), rules: HashMap::new() }
    }
}

impl Net {
    pub(super) fn update_interface(&mut self, wanted: &Interface) -> Done<Interface> {
        let found = self.interfaces.iter_mut().find(|known| known.mac.is_some() && known.mac == wanted.mac);
        let Some(found) = found else {
            return refused(Call::UpdateInterface, "there is no interface of that hardware address");
        };
        *found = wanted.clone();
        Ok(found.clone())
    }

    pub(super) fn update_routes(&mut self, routes: &[Route]) -> Done<Vec<Route>> {
        for route in routes {
            self.device(Call::UpdateRoutes, &route.device)?;
        }
        self.routes = routes.to_vec();
        Ok(self.routes())
    }

    pub(super) fn routes(&self) -> Vec<Route> {
        self.routes.clone()
    }

    pub(super) fn add_neighbors(&mut self, neighbors: &[Neighbor]) -> Done {
        for neighbor in neighbors {
            self.device(Call::AddARPNeighbors, &neighbor.device)?;
        }
        self.neighbors.extend_from_slice(neighbors);
        Ok(())
    }

    pub(super) fn rules(&self, family: IpFamily) -> Vec<u8> {
        self.rules.get(&family).cloned().unwrap_or_default()
    }

    pub(super) fn set_rules(&mut self, family: IpFamily, rules: &[u8]) -> Done<Vec<u8>> {
        if !rules.starts_with(b"*") {
            return refused(Call::SetIPTables, "line 1 has no table");
        }
        self.rules.insert(family, rules.to_vec());
        Ok(Vec::new())
    }

    fn device(&self, call: Call, name: &str) -> Done {
        if self.interfaces.iter().any(|interface| interface.name == name) {
            return Ok(());
        }
        refused(call, &format!("there is no interface {name}"))
    }
}
