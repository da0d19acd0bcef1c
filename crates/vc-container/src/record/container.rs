//! A container as it is written down.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxResources, Spec};
use serde::{Deserialize, Serialize};
use vc_agent::ExitStatus;
use vc_storage::{CopyPlan, Part};
use vc_types::{ContainerId, ExecId, GuestPath, HostPath};

/// How far a container is, for whoever takes it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// It is being made: nobody was told that it is there.
    Creating,
    /// Its process waits for the start.
    Ready,
    /// The guest was told to start its process, or to let it go on, and perhaps has not heard it.
    Running,
    /// The guest was told to freeze its processes, and perhaps has not heard it.
    Paused,
    /// Its process has ended; guest and machine may still hold something of it.
    Stopped,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ExitRecord {
    /// With this code, or 128 and the number of the signal.
    Status(u8),
    /// Nobody knows, for this reason.
    Lost(String),
}

/// A container as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContainerRecord {
    pub(crate) id: ContainerId,
    pub(crate) phase: Phase,
    /// What it is, as it was asked for; its mounts, devices and annotations are in there.
    pub(crate) oci: Spec,
    /// The images of its layers, the top one first.
    pub(crate) layers: Vec<HostPath>,
    /// Its names in the shared directory.
    pub(crate) shares: Vec<String>,
    /// The number of the image that nydusd mounts for it.
    pub(crate) rafs: Option<u32>,
    /// The copies in the guest that follow their sources.
    pub(crate) follows: Vec<FollowRecord>,
    /// Its limits as they are now.
    pub(crate) resources: LinuxResources,
    /// How its own process ended, if it has.
    pub(crate) exit: Option<ExitRecord>,
    /// The processes that were executed in it, and how each ended, if it has.
    pub(crate) processes: BTreeMap<ExecId, Option<ExitRecord>>,
    pub(crate) oom_kills: u64,
}

/// A copy that follows its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FollowRecord {
    source: HostPath,
    target: GuestPath,
}

impl FollowRecord {
    pub(crate) fn of(plan: &CopyPlan) -> Option<Self> {
        plan.watched.then(|| Self { source: plan.source.clone(), target: plan.target.clone() })
    }

    pub(crate) fn plan(&self) -> CopyPlan {
        let (source, target) = (self.source.clone(), self.target.clone());
        CopyPlan { part: Part::Root, source, target, watched: true }
    }
}

impl From<&Result<ExitStatus, String>> for ExitRecord {
    fn from(end: &Result<ExitStatus, String>) -> Self {
        match end {
            Ok(ExitStatus(status)) => Self::Status(*status),
            Err(why) => Self::Lost(why.clone()),
        }
    }
}

impl From<ExitRecord> for Result<ExitStatus, String> {
    fn from(record: ExitRecord) -> Self {
        match record {
            ExitRecord::Status(status) => Ok(ExitStatus(status)),
            ExitRecord::Lost(why) => Err(why),
        }
    }
}
