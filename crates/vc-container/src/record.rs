//! What is written down of a sandbox, so that another process can take it over.
//!
//! Everything that is here is enough to go on: what the machine was launched as and how to find it, who uses
//! which device, and of each container what it is, how far it is, its limits, and how its processes ended.
//! Every field must be there and none may be unknown. The first field is the version; an older one is read,
//! any other is refused with its number.

mod container;
mod machine;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vc_device::Registry;
use vc_types::{ContainerId, ProcessIdentity};

use crate::passing::Passing;
use crate::storage::{Sharing, VolumeUse};

pub(crate) use container::{ContainerRecord, ExitRecord, FollowRecord, Phase};
pub(crate) use machine::MachineRecord;

/// The version that is written.
const VERSION: u32 = 5;

/// Why a text is no record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRecord {
    /// Written by another version.
    #[error("it has version {0}; this program reads version {VERSION} and older")]
    Version(u32),
    /// Not the text of a record.
    #[error("it is damaged, or was changed by hand")]
    Malformed(#[from] serde_json::Error),
}

/// A sandbox as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SandboxRecord {
    version: u32,
    /// Its machine, which has its id.
    pub(crate) machine: MachineRecord,
    /// By what its adapter finds the machine again; none before it was launched.
    pub(crate) handle: Option<String>,
    /// Whether the guest was prepared for containers.
    pub(crate) prepared: bool,
    pub(crate) hostname: String,
    pub(crate) shared_pid_namespace: bool,
    /// How devices of the host are passed.
    pub(crate) passing: Passing,
    /// The devices that were plugged, and their users.
    pub(crate) devices: Registry,
    /// How directories are shared.
    pub(crate) sharing: Sharing,
    /// What serves the shared directory; none before that was needed.
    pub(crate) share_server: Option<ProcessIdentity>,
    /// How many containers had something shared.
    pub(crate) sharers: u32,
    /// The volumes of CSI drivers that are told of the sandbox.
    pub(crate) volumes: Vec<VolumeUse>,
    pub(crate) containers: Vec<ContainerRecord>,
}

/// What every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl SandboxRecord {
    /// A sandbox whose machine is about to be launched.
    pub(crate) fn new(machine: MachineRecord, hostname: String, shared_pid_namespace: bool) -> Self {
        Self {
            version: VERSION,
            machine,
            handle: None,
            prepared: false,
            hostname,
            shared_pid_namespace,
            passing: Passing::default(),
            devices: Registry::default(),
            sharing: Sharing::default(),
            share_server: None,
            sharers: 0,
            volumes: Vec::new(),
            containers: Vec::new(),
        }
    }

    /// What is written down of a container.
    pub(crate) fn container(&mut self, id: &ContainerId) -> Option<&mut ContainerRecord> {
        self.containers.iter_mut().find(|known| known.id == *id)
    }

    /// Forgets a container.
    pub(crate) fn forget(&mut self, id: &ContainerId) {
        self.containers.retain(|known| known.id != *id);
    }

    pub(crate) fn parse(text: &[u8]) -> Result<Self, InvalidRecord> {
        let Versioned { version } = serde_json::from_slice(text)?;
        match version {
            VERSION => Ok(serde_json::from_slice(text)?),
            1..VERSION => {
                let mut record = serde_json::from_slice(text)?;
                if version == 1 {
                    from_version_1(&mut record);
                }
                if version < 3 {
                    from_version_2(&mut record)?;
                }
                if version < 4 {
                    from_version_3(&mut record)?;
                }
                from_version_4(&mut record);
                Ok(serde_json::from_value(record.into())?)
            }
            other => Err(InvalidRecord::Version(other)),
        }
    }

    pub(crate) fn to_text(&self) -> Result<Vec<u8>, InvalidRecord> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// Version 1 knew nothing of directories that are shared or copied, and containers had none.
fn from_version_1(record: &mut Map<String, Value>) {
    record.insert("share_server".into(), Value::Null);
    for container in containers(record) {
        for list in ["shares", "follows"] {
            container.insert(list.into(), Value::Array(Vec::new()));
        }
    }
}

/// Version 2 passed no devices of the host, and told no CSI driver of a sandbox.
fn from_version_2(record: &mut Map<String, Value>) -> Result<(), serde_json::Error> {
    record.insert("passing".into(), serde_json::to_value(Passing::default())?);
    record.insert("volumes".into(), Value::Array(Vec::new()));
    Ok(())
}

/// Version 3 had virtiofsd serve what is shared.
fn from_version_3(record: &mut Map<String, Value>) -> Result<(), serde_json::Error> {
    record.insert("sharing".into(), serde_json::to_value(Sharing::default())?);
    record.insert("images".into(), Value::Object(Map::new()));
    containers(record).for_each(|container| drop(container.insert("rafs".into(), false.into())));
    Ok(())
}

/// Version 4 counted images of nydus, by the names of their containers. One that is there is the last of its name.
/// Other names had no number.
fn from_version_4(record: &mut Map<String, Value>) {
    record.insert("version".into(), VERSION.into());
    let images = record.remove("images");
    let images_of = |id: &Value| images.as_ref()?.get(id.as_str()?)?.as_u64();
    for container in containers(record) {
        let has_image = container.get("rafs").and_then(Value::as_bool).unwrap_or_default();
        let last = container.get("id").and_then(images_of).filter(|_| has_image);
        container.insert("rafs".into(), last.map(|images| images.saturating_sub(1)).into());
    }
    let counts = images.iter().filter_map(Value::as_object).flat_map(Map::values).filter_map(Value::as_u64);
    record.insert("sharers".into(), counts.max().unwrap_or(1).into());
}

fn containers(record: &mut Map<String, Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    let containers = record.get_mut("containers").and_then(Value::as_array_mut);
    containers.into_iter().flatten().filter_map(Value::as_object_mut)
}

#[cfg(test)]
mod tests;
