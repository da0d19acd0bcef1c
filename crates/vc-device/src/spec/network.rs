//! Network interfaces.

use std::fs::File;
use std::sync::Arc;

use vc_types::{DeviceId, HostPath, MacAddress};

/// The most queue pairs of an interface, as Linux' tap has them (`MAX_TAP_QUEUES`).
const MOST_QUEUES: usize = 256;

/// Why an interface cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// No queue, or more than a tap has.
    #[error("interface {device} has {count} queues; an interface has 1 to 256")]
    Queues {
        /// The interface.
        device: DeviceId,
        /// How many were given.
        count: usize,
    },
    /// The kernel is to move the data of some queues but not of others.
    #[error("interface {device} has vhost-net for some of its queues only: give it to all or to none")]
    MixedVhost {
        /// The interface.
        device: DeviceId,
    },
    /// An address that names no interface.
    #[error("interface {device} cannot have the address {mac}: it must not be multicast, and not all zero")]
    Address {
        /// The interface.
        device: DeviceId,
        /// What was asked for.
        mac: MacAddress,
    },
    /// An MTU that no interface has.
    #[error("interface {device} cannot have an MTU of {mtu} bytes: 68 to 65535")]
    Mtu {
        /// The interface.
        device: DeviceId,
        /// What was asked for.
        mtu: u16,
    },
}

/// One queue pair of a tap.
#[derive(Clone, Debug)]
pub struct TapQueue {
    /// `/dev/net/tun`, open and attached to the tap with `IFF_VNET_HDR`.
    pub tap: Arc<File>,
    /// `/dev/vhost-net`, open, when the kernel is to move the data.
    pub vhost: Option<Arc<File>>,
}

/// What moves the data of an interface.
#[derive(Clone, Debug)]
pub enum NetworkBackend {
    /// A tap of the host, one queue pair for each element.
    Tap(Vec<TapQueue>),
    /// A process that serves this Unix socket.
    VhostUser(HostPath),
}

/// A network interface that a machine is to get.
#[derive(Clone, Debug)]
pub struct NetworkSpec {
    id: DeviceId,
    mac: MacAddress,
    mtu: Option<u16>,
    backend: NetworkBackend,
}

impl NetworkSpec {
    /// An interface with the address `mac`; the guest chooses its own MTU if none is given.
    ///
    /// # Errors
    /// [`InvalidNetwork`] for the address of a group or none at all, when there is no queue or too many, when
    /// vhost-net serves only a part of them, or for an MTU below 68 (virtio 1.2, section 5.1.4.1).
    pub fn new(
        id: DeviceId,
        mac: MacAddress,
        mtu: Option<u16>,
        backend: NetworkBackend,
    ) -> Result<Self, InvalidNetwork> {
        if let NetworkBackend::Tap(queues) = &backend {
            let count = queues.len();
            if !(1..=MOST_QUEUES).contains(&count) {
                return Err(InvalidNetwork::Queues { device: id, count });
            }
            let with_vhost = queues.iter().filter(|queue| queue.vhost.is_some()).count();
            if with_vhost != 0 && with_vhost != count {
                return Err(InvalidNetwork::MixedVhost { device: id });
            }
        }
        if mac.is_multicast() || mac == MacAddress([0; 6]) {
            return Err(InvalidNetwork::Address { device: id, mac });
        }
        if let Some(mtu) = mtu.filter(|mtu| *mtu < 68) {
            return Err(InvalidNetwork::Mtu { device: id, mtu });
        }
        Ok(Self { id, mac, mtu, backend })
    }

    /// Names the device within its machine.
    pub fn id(&self) -> &DeviceId {
        &self.id
    }

    /// The interface's address.
    pub fn mac(&self) -> MacAddress {
        self.mac
    }

    /// The MTU in bytes that the guest is told, if any.
    pub fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    /// What moves the data.
    pub fn backend(&self) -> &NetworkBackend {
        &self.backend
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(vhost: bool) -> TapQueue {
        let file = || Arc::new(File::open("/dev/null").unwrap());
        TapQueue { tap: file(), vhost: vhost.then(file) }
    }

    fn make(mtu: Option<u16>, queues: Vec<TapQueue>) -> Result<NetworkSpec, InvalidNetwork> {
        let mac = "52:54:00:12:34:56".parse().unwrap();
        NetworkSpec::new("net0".parse().unwrap(), mac, mtu, NetworkBackend::Tap(queues))
    }

    #[test]
    fn queues_agree_on_who_moves_the_data() {
        assert!(make(Some(1500), vec![queue(true), queue(true)]).is_ok());
        assert!(make(None, vec![queue(false); 256]).is_ok());
        assert!(matches!(make(None, Vec::new()), Err(InvalidNetwork::Queues { count: 0, .. })));
        assert!(matches!(make(None, vec![queue(false); 257]), Err(InvalidNetwork::Queues { .. })));
        let mixed = make(None, vec![queue(true), queue(false)]);
        assert!(matches!(mixed, Err(InvalidNetwork::MixedVhost { .. })));
        assert!(matches!(make(Some(67), vec![queue(false)]), Err(InvalidNetwork::Mtu { mtu: 67, .. })));
    }

    #[test]
    fn addresses_name_one_interface() {
        for bad in ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"] {
            let mac = bad.parse().unwrap();
            let refused =
                NetworkSpec::new("net0".parse().unwrap(), mac, None, NetworkBackend::Tap(vec![queue(false)]));
            assert_eq!(
                refused.unwrap_err(),
                InvalidNetwork::Address { device: "net0".parse().unwrap(), mac }
            );
        }
    }
}
