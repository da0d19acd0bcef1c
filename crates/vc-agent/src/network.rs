//! Interfaces, routes and neighbours of the guest.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use vc_types::{MacAddress, PciPath};

/// A version of the internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpFamily {
    /// Version 4.
    V4,
    /// Version 6.
    V6,
}

impl IpFamily {
    /// The one that `address` is of.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Not an address with the length of its network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network; write an address and a length, such as 192.0.2.7/24")]
pub struct InvalidNetwork(String);

/// An address, and how many of its leading bits name the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpNetwork {
    address: IpAddr,
    length: u8,
}

impl IpNetwork {
    /// `address` in a network of `length` bits; `None` when the address has fewer.
    pub const fn new(address: IpAddr, length: u8) -> Option<Self> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        if length <= most { Some(Self { address, length }) } else { None }
    }

    /// The address.
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// The length of the network, in bits.
    pub const fn length(self) -> u8 {
        self.length
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for IpNetwork {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let parsed = text
            .split_once('/')
            .and_then(|(address, length)| Self::new(address.parse().ok()?, length.parse().ok()?));
        parsed.ok_or_else(|| InvalidNetwork(text.to_owned()))
    }
}

/// An interface of the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name in the guest.
    pub name: String,
    /// What it was on the host; the agent does not use it.
    pub device: String,
    /// By which it is found; some, such as tunnels, have none.
    pub mac: Option<MacAddress>,
    /// Its addresses.
    pub addresses: Vec<IpNetwork>,
    /// The largest packet, in bytes; 0 leaves it as it is.
    pub mtu: u64,
    /// Where its device is, so that the agent can await one that was just plugged.
    pub pci: Option<PciPath>,
    /// Its kind, as the host calls it.
    pub kind: String,
    /// Flags of netdevice(7) to set, such as `IFF_NOARP`.
    pub flags: u32,
}

/// A route of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which version of the protocol it is for.
    pub family: IpFamily,
    /// Where it leads; `None` is everywhere.
    pub destination: Option<IpNetwork>,
    /// The router; `None` when the network is reached directly.
    pub gateway: Option<IpAddr>,
    /// The interface.
    pub device: String,
    /// The address that is sent from.
    pub source: Option<IpAddr>,
    /// `RT_SCOPE_…` of rtnetlink(7): 0 for the universe, 253 for the link, 254 for the host.
    pub scope: u8,
    /// `RTNH_F_…` of rtnetlink(7), such as 4 for a gateway that counts as on the link.
    pub flags: u32,
    /// The largest packet, in bytes; 0 when the interface decides.
    pub mtu: u32,
}

/// A host in reach of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address.
    pub mac: MacAddress,
    /// The interface.
    pub device: String,
    /// `NUD_…` of rtnetlink(7): 0x80 for one that stays.
    pub state: u16,
    /// `NTF_…` of rtnetlink(7).
    pub flags: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_where_they_are_made() {
        assert_eq!("192.0.2.7/24".parse::<IpNetwork>().unwrap().to_string(), "192.0.2.7/24");
        assert_eq!("2001:db8::1/128".parse::<IpNetwork>().unwrap().length(), 128);
        for bad in ["", "192.0.2.7", "192.0.2.7/33", "::/129", "x/8", "192.0.2.7/-1", "192.0.2.7/24/1"] {
            assert!(bad.parse::<IpNetwork>().is_err(), "{bad:?}");
        }
    }
}
