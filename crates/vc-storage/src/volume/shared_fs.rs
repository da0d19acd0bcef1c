//! How host and guest share a file system.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How host and guest share a file system, by the names that Kata has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SharedFs {
    /// Not at all.
    None,
    /// virtiofsd serves a directory of the host.
    VirtioFs,
    /// nydusd serves a directory of the host, and RAFS images beside it.
    #[serde(rename = "virtio-fs-nydus")]
    Nydus,
}

/// Not a way to share a file system.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of virtio-fs, virtio-fs-nydus and none")]
pub struct InvalidSharedFs(String);

impl fmt::Display for SharedFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::VirtioFs => "virtio-fs",
            Self::Nydus => "virtio-fs-nydus",
        })
    }
}

impl FromStr for SharedFs {
    type Err = InvalidSharedFs;

    fn from_str(text: &str) -> Result<Self, InvalidSharedFs> {
        let all = [Self::None, Self::VirtioFs, Self::Nydus];
        let known = all.into_iter().find(|known| known.to_string() == text);
        known.ok_or_else(|| InvalidSharedFs(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written() {
        for known in [SharedFs::None, SharedFs::VirtioFs, SharedFs::Nydus] {
            let text = known.to_string();
            assert_eq!(text.parse(), Ok(known));
            assert_eq!(serde_json::to_string(&known).unwrap(), format!("{text:?}"));
        }
        assert_eq!("virtiofs".parse::<SharedFs>(), Err(InvalidSharedFs("virtiofs".into())));
    }
}
