//! One device: what it is, who uses it, how far it is.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use vc_types::{ContainerId, DeviceId};

use crate::request::{ContainerNode, DeviceSource};
use crate::spec::Access;
use crate::topology::GuestLocation;

/// How long a device stays plugged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lifetime {
    /// Until the last container that uses it detaches it.
    Container,
    /// Until the pod ends. One use of this kind is enough.
    Pod,
}

/// How far a device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DeviceState {
    /// It is being plugged, by its only user.
    Plugging,
    /// It is plugged.
    Plugged(GuestLocation),
    /// It is there; nothing had to be plugged.
    Made,
    /// It is being unplugged.
    Unplugging {
        /// Where it was, if that was ever known.
        from: Option<GuestLocation>,
    },
    /// Nobody knows: its plug had no answer, and the unplug failed. It can only be unplugged.
    Uncertain,
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plugging => f.write_str("being plugged"),
            Self::Plugged(location) => write!(f, "plugged at {location}"),
            Self::Made => f.write_str("there without a plug"),
            Self::Unplugging { .. } => f.write_str("being unplugged"),
            Self::Uncertain => f.write_str("in an unknown state: unplug it"),
        }
    }
}

/// A report about a device does not fit what is known. Everything is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// No such device.
    #[error("device {0} is not known")]
    Unknown(DeviceId),
    /// Another state than the report is about.
    #[error("device {device} is {state}, so it cannot have been {report}")]
    Other {
        /// The device.
        device: DeviceId,
        /// How far it is.
        state: DeviceState,
        /// What was reported.
        report: &'static str,
    },
    /// Another device is there.
    #[error("device {device} cannot be at {location}: {other} is there")]
    LocationTaken {
        /// The device.
        device: DeviceId,
        /// Where it is said to be.
        location: GuestLocation,
        /// The device that is there.
        other: DeviceId,
    },
}

/// One use of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// By whom.
    pub container: ContainerId,
    /// Whether this container may write; if not, what it mounts is mounted read-only.
    pub access: Access,
    /// The node that it finds, when it asked for one.
    pub node: Option<ContainerNode>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) source: DeviceSource,
    pub(super) access: Access,
    pub(super) lifetime: Lifetime,
    pub(super) state: DeviceState,
    pub(super) uses: BTreeMap<u64, Use>,
}

impl Entry {
    /// Where it is, as far as that is known.
    pub(super) fn location(&self) -> Option<&GuestLocation> {
        match &self.state {
            DeviceState::Plugged(location) | DeviceState::Unplugging { from: Some(location) } => {
                Some(location)
            }
            _ => None,
        }
    }

    pub(super) fn is_unplugging(&self) -> bool {
        matches!(self.state, DeviceState::Unplugging { .. })
    }
}
