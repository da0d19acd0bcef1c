//! What the guest tells of itself, and what it can be told about its hardware.

use crate::StorageDriver;

/// What an agent is and can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestDetails {
    /// The agent's version.
    pub version: String,
    /// Whether the agent is the guest's init.
    pub is_init: bool,
    /// The kinds of device it can give to containers.
    pub devices: Vec<String>,
    /// The kinds of storage it can mount, by their names in the protocol.
    pub storages: Vec<String>,
    /// Whether it can confine containers by seccomp.
    pub seccomp: bool,
    /// What else it can do.
    pub features: Vec<String>,
    /// The size of the blocks in which the guest's kernel takes memory, in bytes; `None` when it takes none.
    pub memory_block: Option<u64>,
    /// Whether the kernel has to be told where plugged memory is
    /// ([`System::probe_memory`](crate::System::probe_memory)).
    pub memory_probe: bool,
}

/// What an agent can do beyond the agent protocol. It is asked for before it is used: another agent refuses it, or
/// does something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// A storage with the option `X-vc.blob-partition=N` has data of its file system in the partition N.
    BlobPartitions,
}

impl Feature {
    /// Its name among the extra features of GetGuestDetails.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BlobPartitions => "vc.blob-partitions",
        }
    }
}

impl GuestDetails {
    /// Whether the agent can do `feature`.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.iter().any(|name| name == feature.name())
    }

    /// Whether the agent can mount storages of the kind `driver`.
    pub fn can_mount(&self, driver: StorageDriver) -> bool {
        self.storages.iter().any(|name| name == driver.name())
    }
}

/// What of the plugged hardware is to be taken into use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Online {
    /// How many processors were plugged.
    pub cpus: u32,
    /// Whether memory was.
    pub memory: bool,
    /// Whether the answer waits until all of it is in use.
    pub wait: bool,
}

/// What a container may leave for whoever looks into its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Diagnostic {
    /// The file that the annotation `io.kubernetes.container.terminationMessagePath` of its
    /// specification names.
    TerminationLog,
}

impl Diagnostic {
    /// Its name in the agent protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TerminationLog => "termination_log",
        }
    }
}
