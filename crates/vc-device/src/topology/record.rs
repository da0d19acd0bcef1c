//! A topology as it is written down, and checked when it is read back.

use serde::{Deserialize, Serialize};
use vc_types::DeviceId;

use super::{Capacity, PortError, PortKind, Topology};

/// The version of the form below.
const VERSION: u32 = 1;

/// Why a record is no topology.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopology {
    /// Written by another version.
    #[error("the record of plugged devices has version {0}; this program reads version {VERSION}")]
    Version(u32),
    /// More places than a machine has.
    #[error("the record of plugged devices is of no machine that there can be")]
    Capacity(#[source] PortError),
    /// A device in a place that is not there or is taken.
    #[error(
        "the record of plugged devices has {device} in number {index} of the {kind}, which is taken or not there"
    )]
    Place {
        /// The device.
        device: DeviceId,
        /// The kind of place.
        kind: PortKind,
        /// Which.
        index: u16,
    },
    /// A device in two places.
    #[error("the record of plugged devices has {0} in two places")]
    Twice(DeviceId),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TopologyRecord {
    version: u32,
    capacity: Capacity,
    plugged: Vec<Plugged>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plugged {
    kind: PortKind,
    index: u16,
    device: DeviceId,
}

impl From<Topology> for TopologyRecord {
    fn from(topology: Topology) -> Self {
        let plugged = topology.plugged().into_iter();
        let plugged = plugged.map(|(place, device)| Plugged {
            kind: place.kind(),
            index: place.index(),
            device: device.clone(),
        });
        Self { version: VERSION, capacity: topology.capacity, plugged: plugged.collect() }
    }
}

impl TryFrom<TopologyRecord> for Topology {
    type Error = InvalidTopology;

    fn try_from(record: TopologyRecord) -> Result<Self, InvalidTopology> {
        if record.version != VERSION {
            return Err(InvalidTopology::Version(record.version));
        }
        let mut topology = Self::new(record.capacity).map_err(InvalidTopology::Capacity)?;
        for Plugged { kind, index, device } in record.plugged {
            if topology.find(&device).is_some() {
                return Err(InvalidTopology::Twice(device));
            }
            if !topology.slots_mut(kind).put(index, device.clone()) {
                return Err(InvalidTopology::Place { device, kind, index });
            }
        }
        Ok(topology)
    }
}
