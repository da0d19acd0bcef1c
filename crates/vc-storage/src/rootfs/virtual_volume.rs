//! Kata's own description of a volume: `io.katacontainers.volume=`, JSON in base64.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The option that carries a description.
pub const VIRTUAL_VOLUME_OPTION: &str = "io.katacontainers.volume=";

/// A volume (`KataVirtualVolume`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualVolume {
    /// What it is.
    pub volume_type: VolumeType,
    /// Where it is; what that means depends on the type.
    #[serde(default)]
    pub source: String,
    /// Its file system.
    #[serde(default)]
    pub fs_type: String,
    /// Mount options.
    #[serde(default)]
    pub options: Vec<String>,
    /// Of a direct-assigned volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_volume: Option<VolumeMetadata>,
    /// Of an image that the guest pulls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull: Option<ImagePull>,
    /// Of a RAFS image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nydus_image: Option<NydusImage>,
    /// Of a device that dm-verity checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dm_verity: Option<DmVerityInfo>,
}

/// The kinds of volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeType {
    /// A block device with a volume.
    DirectBlock,
    /// A raw image of a whole root file system.
    ImageRawBlock,
    /// A raw image of one layer.
    LayerRawBlock,
    /// A RAFS image as a block device.
    ImageNydusBlock,
    /// A RAFS layer as a block device.
    LayerNydusBlock,
    /// A RAFS image that nydusd serves.
    ImageNydusFs,
    /// A RAFS layer that nydusd serves.
    LayerNydusFs,
    /// An image that the guest pulls.
    ImageGuestPull,
}

/// Metadata of a direct-assigned volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMetadata {
    /// Names and values.
    pub metadata: BTreeMap<String, String>,
}

/// What the guest is told to pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePull {
    /// Names and values.
    pub metadata: BTreeMap<String, String>,
}

/// A RAFS image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NydusImage {
    /// The configuration of nydusd.
    #[serde(default)]
    pub config: String,
    /// The snapshot's directory.
    #[serde(default)]
    pub snapshot_dir: String,
}

/// What dm-verity is told (`Documentation/admin-guide/device-mapper/verity.rst`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmVerityInfo {
    /// The hash algorithm.
    pub hashtype: HashType,
    /// The root hash.
    pub hash: String,
    /// How many data blocks there are.
    pub blocknum: u64,
    /// The size of a data block in bytes.
    pub blocksize: u64,
    /// The size of a hash block in bytes.
    pub hashsize: u64,
    /// Where the hash tree starts in bytes.
    pub offset: u64,
}

/// The algorithms of dm-verity that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashType {
    /// SHA-256.
    #[serde(alias = "SHA256")]
    Sha256,
    /// SHA-1.
    #[serde(alias = "SHA1")]
    Sha1,
}

/// Why a description is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVirtualVolume {
    /// The value is not base64.
    #[error("the option io.katacontainers.volume= is not base64")]
    Base64,
    /// The JSON is malformed.
    #[error("the option io.katacontainers.volume= has malformed JSON: {0}")]
    Json(String),
    /// A part that the type needs is missing.
    #[error("a volume of type {volume_type:?} needs {part}")]
    Missing {
        /// The type.
        volume_type: VolumeType,
        /// The part.
        part: &'static str,
    },
    /// A value of dm-verity is out of bounds.
    #[error("dm_verity.{field} is {value:?}: expected is {expected}")]
    Verity {
        /// The field.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it can be.
        expected: &'static str,
    },
}

impl VirtualVolume {
    /// Reads and checks a description.
    ///
    /// # Errors
    /// [`InvalidVirtualVolume`]: a volume that is not understood is never served as something else.
    pub fn from_base64(value: &str) -> Result<Self, InvalidVirtualVolume> {
        let json = STANDARD.decode(value).map_err(|_| InvalidVirtualVolume::Base64)?;
        let volume: Self =
            serde_json::from_slice(&json).map_err(|error| InvalidVirtualVolume::Json(error.to_string()))?;
        volume.check()?;
        Ok(volume)
    }

    fn check(&self) -> Result<(), InvalidVirtualVolume> {
        use VolumeType::*;
        let volume_type = self.volume_type;
        let need = |there: bool, part| {
            if there { Ok(()) } else { Err(InvalidVirtualVolume::Missing { volume_type, part }) }
        };
        need(!self.source.is_empty(), "a source")?;
        match volume_type {
            ImageGuestPull => need(self.image_pull.is_some(), "image_pull")?,
            ImageNydusBlock | LayerNydusBlock | ImageNydusFs | LayerNydusFs => {
                need(self.nydus_image.is_some(), "nydus_image")?;
            }
            DirectBlock | ImageRawBlock | LayerRawBlock => {}
        }
        if let Some(nydus) = &self.nydus_image {
            let known = !nydus.config.is_empty() || !nydus.snapshot_dir.is_empty();
            need(known, "nydus_image.config or nydus_image.snapshot_dir")?;
        }
        self.dm_verity.as_ref().map_or(Ok(()), DmVerityInfo::check)
    }
}

impl DmVerityInfo {
    fn check(&self) -> Result<(), InvalidVirtualVolume> {
        let bad = |field, value: &dyn ToString, expected| {
            Err(InvalidVirtualVolume::Verity { field, value: value.to_string(), expected })
        };
        let (digits, expected) = match self.hashtype {
            HashType::Sha256 => (64, "64 hexadecimal digits"),
            HashType::Sha1 => (40, "40 hexadecimal digits"),
        };
        if self.hash.len() != digits || !self.hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            return bad("hash", &self.hash, expected);
        }
        if !(1..=u64::from(u32::MAX)).contains(&self.blocknum) {
            return bad("blocknum", &self.blocknum, "1 to 2^32-1");
        }
        for (field, size) in [("blocksize", self.blocksize), ("hashsize", self.hashsize)] {
            if !size.is_power_of_two() || !(512..=524_288).contains(&size) {
                return bad(field, &size, "a power of two from 512 to 524288");
            }
        }
        // Both factors are bounded above, so the product fits.
        if !self.offset.is_multiple_of(self.hashsize) || self.offset < self.blocksize * self.blocknum {
            return bad("offset", &self.offset, "a multiple of hashsize behind the data");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(value: &Value) -> Result<VirtualVolume, InvalidVirtualVolume> {
        VirtualVolume::from_base64(&STANDARD.encode(value.to_string()))
    }

    #[test]
    fn every_type_is_parsed() {
        let nydus = json!({"config": "{}"});
        let pull = json!({"metadata": {"image": "busybox"}});
        for (name, extra) in [
            ("direct_block", json!({"direct_volume": {"metadata": {}}})),
            ("image_raw_block", json!({})),
            ("layer_raw_block", json!({})),
            ("image_nydus_block", json!({"nydus_image": nydus})),
            ("layer_nydus_block", json!({"nydus_image": nydus})),
            ("image_nydus_fs", json!({"nydus_image": nydus})),
            ("layer_nydus_fs", json!({"nydus_image": nydus})),
            ("image_guest_pull", json!({"image_pull": pull})),
        ] {
            let mut value = json!({"volume_type": name, "source": "x"});
            value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let volume = parse(&value).unwrap();
            assert_eq!(serde_json::to_value(volume.volume_type).unwrap(), json!(name));
            value["source"] = json!("");
            assert!(matches!(parse(&value), Err(InvalidVirtualVolume::Missing { .. })), "{name}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert_eq!(VirtualVolume::from_base64("%"), Err(InvalidVirtualVolume::Base64));
        for bad in [
            json!({}),
            json!({"volume_type": ""}),
            json!({"volume_type": "new", "source": "x"}),
            json!({"volume_type": "image_guest_pull", "source": "x", "image_pull": {"metadata": null}}),
        ] {
            assert!(matches!(parse(&bad), Err(InvalidVirtualVolume::Json(_))), "{bad}");
        }
        for bad in [
            json!({"volume_type": "image_guest_pull", "source": "x"}),
            json!({"volume_type": "image_nydus_fs", "source": "x", "nydus_image": {}}),
        ] {
            assert!(matches!(parse(&bad), Err(InvalidVirtualVolume::Missing { .. })), "{bad}");
        }
    }

    #[test]
    fn dm_verity_is_bounded() {
        let good = json!({"hashtype": "sha256", "hash": "aB".repeat(32), "blocknum": 8, "blocksize": 512, "hashsize": 4096, "offset": 4096});
        let with = |field: &str, value: Value| {
            let mut verity = good.clone();
            verity[field] = value;
            parse(&json!({"volume_type": "image_raw_block", "source": "/a", "dm_verity": verity}))
        };
        assert!(with("offset", json!(8192)).is_ok());
        for (field, value) in [
            ("hash", json!("ab")),
            ("hash", json!("zz".repeat(32))),
            ("blocknum", json!(0)),
            ("blocknum", json!(1u64 << 32)),
            ("blocksize", json!(513)),
            ("hashsize", json!(1 << 20)),
            ("offset", json!(100)),
            ("offset", json!(0)),
        ] {
            let error = with(field, value.clone()).unwrap_err();
            assert!(matches!(error, InvalidVirtualVolume::Verity { .. }), "{field} {value}: {error}");
        }
        assert!(matches!(with("hashtype", json!("md5")), Err(InvalidVirtualVolume::Json(_))));
    }
}
