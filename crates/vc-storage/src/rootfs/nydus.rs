//! What nydus-snapshotter tells the runtime: `extraoption=`, JSON in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use vc_types::HostPath;

/// What nydusd is to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NydusExtra {
    /// The bootstrap of the RAFS image.
    pub source: HostPath,
    /// The configuration of nydusd.
    pub config: String,
    /// The snapshot's directory, with `fs` and `work` in it.
    #[serde(rename = "snapshotdir")]
    pub snapshot_dir: HostPath,
}

/// Why it is not told what to serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNydus {
    /// There must be one `extraoption`.
    #[error("{0} options extraoption= are given; nydus-overlayfs has one")]
    Count(usize),
    /// The value is not base64.
    #[error("the option extraoption= is not base64")]
    Base64,
    /// The JSON is malformed.
    #[error("the option extraoption= has malformed JSON: {0}")]
    Json(String),
    /// The configuration is missing.
    #[error("the option extraoption= has no config")]
    NoConfig,
}

/// Whether a mount's type is nydus-overlayfs: `fuse.` and the program, by name or by path.
pub(super) fn is_nydus(kind: &str) -> bool {
    let program = kind.strip_prefix("fuse.").unwrap_or_default();
    program.rsplit('/').next().unwrap_or_default().starts_with("nydus-overlayfs")
}

pub(super) fn extra(options: &[String]) -> Result<NydusExtra, InvalidNydus> {
    let mut values = options.iter().filter_map(|option| option.strip_prefix("extraoption="));
    let (Some(value), None) = (values.next(), values.next()) else {
        let count = options.iter().filter(|option| option.starts_with("extraoption=")).count();
        return Err(InvalidNydus::Count(count));
    };
    let json = STANDARD.decode(value).map_err(|_| InvalidNydus::Base64)?;
    let extra: NydusExtra =
        serde_json::from_slice(&json).map_err(|error| InvalidNydus::Json(error.to_string()))?;
    if extra.config.is_empty() { Err(InvalidNydus::NoConfig) } else { Ok(extra) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_has_a_name_or_a_path() {
        for good in
            ["fuse.nydus-overlayfs", "fuse./usr/local/bin/nydus-overlayfs", "fuse.nydus-overlayfs-abc"]
        {
            assert!(is_nydus(good), "{good}");
        }
        for bad in ["nydus-overlayfs", "fuse.overlayfs", "fuse.nydus-overlayfs/x", "fuse."] {
            assert!(!is_nydus(bad), "{bad}");
        }
    }

    #[test]
    fn a_damaged_option_is_an_error() {
        let option = |json: &str| vec![format!("extraoption={}", STANDARD.encode(json))];
        assert_eq!(extra(&[]), Err(InvalidNydus::Count(0)));
        assert_eq!(extra(&["extraoption=?".to_owned()]), Err(InvalidNydus::Base64));
        assert!(matches!(extra(&option("{}")), Err(InvalidNydus::Json(_))));
        let no_config = option(r#"{"source":"/a","config":"","snapshotdir":"/b"}"#);
        assert_eq!(extra(&no_config), Err(InvalidNydus::NoConfig));
        let relative = option(r#"{"source":"a","config":"{}","snapshotdir":"/b"}"#);
        assert!(matches!(extra(&relative), Err(InvalidNydus::Json(_))));
    }
}
