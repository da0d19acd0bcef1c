//! A mount as a snapshotter hands it over.

use serde::{Deserialize, Serialize};

/// A mount as containerd's snapshotters hand it over (`containerd.types.Mount`), in JSON:
/// `{"type": "overlay", "source": "overlay", "options": ["lowerdir=/b:/a"]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The file system's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Mount options.
    #[serde(default)]
    pub options: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_is_checked() {
        let text =
            r#"{"type": "overlay", "source": "overlay", "options": ["lowerdir=/b:/a", "upperdir=/u"]}"#;
        let mount: Mount = serde_json::from_str(text).unwrap();
        assert_eq!((mount.kind.as_str(), mount.options.len()), ("overlay", 2));
        assert!(serde_json::from_str::<Mount>(r#"{"type": "overlay"}"#).is_err());
        assert!(serde_json::from_str::<Mount>(r#"{"type": "a", "source": "b", "lowerdir": "c"}"#).is_err());
    }
}
