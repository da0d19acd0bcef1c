//! Direct-assigned volumes: a CSI driver leaves a device to the runtime by a `mountInfo.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vc_types::HostPath;

/// What a CSI driver says about a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DirectVolume {
    /// The device or image with the volume.
    pub device: HostPath,
    /// Its file system.
    pub fs_type: String,
    /// Mount options.
    pub options: Vec<String>,
    /// Who its files are given to.
    pub fs_group: Option<FsGroupOf>,
}

/// Who the files of a volume are given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FsGroupOf {
    /// The group; 0 is a group as any other.
    pub id: u32,
    /// Whether only when the volume's root does not belong to it.
    pub on_root_mismatch: bool,
}

/// Why nothing is known about a volume.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDirectVolume {
    /// It cannot be read or written.
    #[error("cannot use {path:?}")]
    Store {
        /// The file or directory.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not JSON of the expected form.
    #[error("mountInfo.json is malformed: {0}")]
    Json(String),
    /// Its type is not known.
    #[error("mountInfo.json has the volume-type {0:?}; only block is known")]
    Type(String),
    /// The group is no number.
    #[error("mountInfo.json has the fsGroup {0:?}, which is no group number")]
    Group(String),
    /// The policy is not known.
    #[error("mountInfo.json has the fsGroupChangePolicy {0:?}; Always and OnRootMismatch are known")]
    Policy(String),
    /// A policy for no group.
    #[error("mountInfo.json has an fsGroupChangePolicy without an fsGroup")]
    NoGroup,
    /// Something else is asked for.
    #[error("mountInfo.json has the metadata {0:?}, which is not known")]
    Metadata(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Json {
    volume_type: String,
    device: HostPath,
    #[serde(rename = "fstype")]
    fs_type: String,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    options: Option<Vec<String>>,
}

impl DirectVolume {
    /// Reads a `mountInfo.json`.
    ///
    /// # Errors
    /// [`InvalidDirectVolume`]: the volume is then not served at all. To share the directory instead would
    /// make the container write to the host's disk.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidDirectVolume> {
        let json: Json =
            serde_json::from_slice(text).map_err(|error| InvalidDirectVolume::Json(error.to_string()))?;
        if json.volume_type != "block" {
            return Err(InvalidDirectVolume::Type(json.volume_type));
        }
        let (mut id, mut on_root_mismatch) = (None, None);
        for (name, value) in json.metadata.unwrap_or_default() {
            match name.as_str() {
                "fsGroup" => id = Some(value.parse().map_err(|_| InvalidDirectVolume::Group(value))?),
                "fsGroupChangePolicy" => {
                    on_root_mismatch = Some(match value.as_str() {
                        "Always" => false,
                        "OnRootMismatch" => true,
                        _ => return Err(InvalidDirectVolume::Policy(value)),
                    });
                }
                _ => return Err(InvalidDirectVolume::Metadata(name)),
            }
        }
        let fs_group = match (id, on_root_mismatch) {
            (Some(id), policy) => Some(FsGroupOf { id, on_root_mismatch: policy.unwrap_or(false) }),
            (None, Some(_)) => return Err(InvalidDirectVolume::NoGroup),
            (None, None) => None,
        };
        let options = json.options.unwrap_or_default();
        Ok(Self { device: json.device, fs_type: json.fs_type, options, fs_group })
    }
}
