//! UpdateInterface and ListInterfaces.

use super::error::NetworkError;
use super::netlink::Netlink;
use super::text;
use crate::uevent::DeviceEvents;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use nix::errno::Errno;
use std::net::IpAddr;
use std::sync::Arc;
use vc_agent_protocol::types::{IPAddress, IPFamily, Interface};
use vc_types::Deadline;

/// An interface as the kernel has it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    hardware: Vec<u8>,
    mtu: u32,
    flags: LinkFlags,
}

/// Gives the interface of the request's hardware address the request's name, addresses and MTU, and brings it
/// up. Waits for the interface until `deadline`.
pub(crate) async fn update_interface(
    wanted: &Interface,
    mut events: DeviceEvents,
    deadline: Deadline,
) -> Result<Interface, NetworkError> {
    let wanted = Arc::new(Wanted::parse(wanted)?);
    let mut late = false;
    loop {
        // The kernel answers at once, unless another network device is just being set up.
        let applied = tokio::task::spawn_blocking({
            let wanted = Arc::clone(&wanted);
            move || wanted.apply_if_there()
        });
        match applied.await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(interface))) => return Ok(interface),
            Ok(Err(error)) => return Err(error),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
        if late {
            let hardware = text::hardware_text(&wanted.hardware);
            return Err(NetworkError::Absent(format!("the hardware address {hardware}")));
        }
        // After the deadline it looks once more, in case the event was lost.
        late = tokio::time::timeout(deadline.remaining(), events.changed()).await.is_err();
    }
}

/// All interfaces and their addresses.
pub(crate) fn list_interfaces() -> Result<Vec<Interface>, NetworkError> {
    let addresses = addresses()?;
    Ok(links()?.iter().map(|link| describe(link, &addresses)).collect())
}

/// Brings the loopback interface up; the kernel gives it its addresses then.
pub(crate) fn loopback_up() -> Result<(), NetworkError> {
    let link = links()?.into_iter().find(|link| link.flags.contains(LinkFlags::Loopback));
    let link = link.ok_or_else(|| NetworkError::Absent("the loopback".to_owned()))?;
    set_flags(&link, LinkFlags::Up, LinkFlags::Up)
}

/// An interface as the host wants it, checked.
struct Wanted {
    hardware: Vec<u8>,
    name: Option<String>,
    addresses: Vec<(IpAddr, u8)>,
    mtu: u32,
    flags: LinkFlags,
}

impl Wanted {
    fn parse(wire: &Interface) -> Result<Self, NetworkError> {
        let name = (!wire.name.is_empty()).then(|| text::interface_name(&wire.name)).transpose()?;
        let address = |address: &IPAddress| text::prefix(&address.address, &address.mask);
        Ok(Self {
            hardware: text::hardware(&wire.hw_addr)?,
            name: name.map(str::to_owned),
            addresses: wire.ip_addresses.iter().map(address).collect::<Result<_, _>>()?,
            mtu: u32::try_from(wire.mtu).map_err(|_| NetworkError::Range("the MTU"))?,
            flags: LinkFlags::from_bits_truncate(wire.raw_flags),
        })
    }

    fn apply_if_there(&self) -> Result<Option<Interface>, NetworkError> {
        let found = links()?.into_iter().find(|link| link.hardware == self.hardware);
        found.map(|link| self.apply(&link)).transpose()
    }

    fn apply(&self, link: &Link) -> Result<Interface, NetworkError> {
        if let Some(name) = self.name.as_ref().filter(|name| **name != link.name) {
            rename(link, name)?;
        }
        if self.mtu > 0 && self.mtu != link.mtu {
            set(link, "set the MTU of", vec![LinkAttribute::Mtu(self.mtu)])?;
        }
        self.set_addresses(link)?;
        let noarp = self.flags & LinkFlags::Noarp;
        set_flags(link, LinkFlags::Up | noarp, LinkFlags::Up | LinkFlags::Noarp)?;
        let addresses = addresses()?;
        let now = links()?.into_iter().find(|now| now.index == link.index);
        Ok(describe(&now.unwrap_or_else(|| link.clone()), &addresses))
    }

    /// Addresses that stay are not touched, so that their routes stay as well.
    fn set_addresses(&self, link: &Link) -> Result<(), NetworkError> {
        let mut netlink = open()?;
        for message in addresses()?.into_iter().filter(|message| message.header.index == link.index) {
            let is_wanted = address_of(&message)
                .is_some_and(|address| self.addresses.contains(&(address, message.header.prefix_len)));
            // The kernel's own, without which IPv6 does not work.
            let is_kernels = address_of(&message).is_some_and(is_link_local);
            if !is_wanted && !is_kernels {
                let gone = netlink.change(Message::DelAddress(message), 0);
                failed("take an address from", &link.name, gone)?;
            }
        }
        for (address, length) in &self.addresses {
            let mut message = AddressMessage::default();
            message.header.family = text::family(*address);
            message.header.prefix_len = *length;
            message.header.index = link.index;
            message.attributes = vec![AddressAttribute::Local(*address), AddressAttribute::Address(*address)];
            let added = netlink.change(Message::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE);
            failed("give an address to", &link.name, added)?;
        }
        Ok(())
    }
}

/// The interfaces of this network namespace.
pub(super) fn links() -> Result<Vec<Link>, NetworkError> {
    let found = open()?.list(Message::GetLink(LinkMessage::default()));
    let messages = failed("list", "the interfaces", found)?;
    let links = messages.into_iter().filter_map(|message| match message {
        Message::NewLink(link) => Some(read_link(&link)),
        _ => None,
    });
    Ok(links.collect())
}

/// The index of the interface called `name`.
pub(super) fn index_of(links: &[Link], name: &str) -> Result<u32, NetworkError> {
    let found = links.iter().find(|link| link.name == name);
    let absent =
        || NetworkError::Absent(format!("the name {:?}", name.chars().take(100).collect::<String>()));
    found.map(|link| link.index).ok_or_else(absent)
}

pub(super) fn open() -> Result<Netlink, NetworkError> {
    failed("open", "a routing socket", Netlink::open())
}

pub(super) fn failed<T>(
    step: &'static str,
    object: &str,
    result: Result<T, Errno>,
) -> Result<T, NetworkError> {
    result.map_err(|errno| NetworkError::Kernel { step, object: object.to_owned(), errno })
}

fn read_link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        hardware: Vec::new(),
        mtu: 0,
        flags: message.header.flags,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(address) => link.hardware.clone_from(address),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    link
}

fn addresses() -> Result<Vec<AddressMessage>, NetworkError> {
    let found = open()?.list(Message::GetAddress(AddressMessage::default()));
    let messages = failed("list", "the addresses", found)?;
    let addresses = messages.into_iter().filter_map(|message| match message {
        Message::NewAddress(address) => Some(address),
        _ => None,
    });
    Ok(addresses.collect())
}

/// The interface's own address: `Address` is the other end's on a point-to-point link.
fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    local.or(any)
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn describe(link: &Link, addresses: &[AddressMessage]) -> Interface {
    let own = addresses.iter().filter(|message| message.header.index == link.index);
    let addresses = own.filter_map(|message| {
        let address = address_of(message)?;
        let family = if address.is_ipv4() { IPFamily::v4 } else { IPFamily::v6 };
        Some(IPAddress {
            family: family.into(),
            address: address.to_string(),
            mask: message.header.prefix_len.to_string(),
            ..Default::default()
        })
    });
    Interface {
        device: link.name.clone(),
        name: link.name.clone(),
        ip_addresses: addresses.collect(),
        mtu: link.mtu.into(),
        hw_addr: text::hardware_text(&link.hardware),
        raw_flags: link.flags.bits(),
        ..Default::default()
    }
}

/// Renames an interface, which the kernel allows only while it is down. One that has the name already gets
/// the name that becomes free.
fn rename(link: &Link, name: &str) -> Result<(), NetworkError> {
    let other = links()?.into_iter().find(|other| other.name == name);
    set_flags(link, LinkFlags::empty(), LinkFlags::Up)?;
    let named = |name: &str| vec![LinkAttribute::IfName(name.to_owned())];
    let Some(other) = other else { return set(link, "rename", named(name)) };
    let was_up = other.flags & LinkFlags::Up;
    set_flags(&other, LinkFlags::empty(), LinkFlags::Up)?;
    set(&other, "rename", named(&format!("vc{}", other.index)))?;
    set(link, "rename", named(name))?;
    set(&other, "rename", named(&link.name))?;
    set_flags(&other, was_up, LinkFlags::Up)
}

fn set_flags(link: &Link, flags: LinkFlags, mask: LinkFlags) -> Result<(), NetworkError> {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.header.flags = flags;
    message.header.change_mask = mask;
    failed("switch", &link.name, open()?.change(Message::SetLink(message), 0))
}

fn set(link: &Link, step: &'static str, attributes: Vec<LinkAttribute>) -> Result<(), NetworkError> {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.attributes = attributes;
    failed(step, &link.name, open()?.change(Message::SetLink(message), 0))
}
