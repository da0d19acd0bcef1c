//! The root of an image's dm-verity tree, as the snapshotter writes it beside the image.

use serde::{Deserialize, Serialize};

/// What proves an image: the root hash, and where the tree is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerityRoot {
    /// The root hash, in lower-case hexadecimal.
    pub root_hash: String,
    /// Where in the image the tree starts, in bytes.
    pub hash_offset: u64,
    /// The salt of the hashes in hexadecimal, if the snapshotter tells it.
    pub salt: Option<String>,
}

/// Why it is no root of a tree.
#[derive(Debug, thiserror::Error)]
pub enum InvalidVerityRoot {
    /// It is not JSON of the expected form.
    #[error("expected is JSON with roothash and hashoffset")]
    Json(#[from] serde_json::Error),
    /// The hash is none.
    #[error("{0:?} is no SHA-256 in hexadecimal")]
    Hash(String),
    /// The salt is none.
    #[error("{0:?} is no salt in hexadecimal, of at most 256 bytes")]
    Salt(String),
    /// The offset is none.
    #[error("the hash tree cannot start at byte {0}: expected is a multiple of 512 above 0")]
    Offset(u64),
}

#[derive(Deserialize)]
struct Json {
    roothash: String,
    hashoffset: u64,
    #[serde(default)]
    salt: Option<String>,
}

impl VerityRoot {
    /// Reads the file that `X-containerd.dmverity=` names.
    ///
    /// # Errors
    /// [`InvalidVerityRoot`] when it is malformed.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidVerityRoot> {
        let Json { roothash, hashoffset, salt } = serde_json::from_slice(text)?;
        if roothash.len() != 64 || !roothash.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(InvalidVerityRoot::Hash(roothash));
        }
        if hashoffset == 0 || !hashoffset.is_multiple_of(512) {
            return Err(InvalidVerityRoot::Offset(hashoffset));
        }
        let is_salt = |salt: &String| salt.len() <= 512 && salt.bytes().all(|b| b.is_ascii_hexdigit());
        let salt = salt.filter(|salt| !salt.is_empty());
        if let Some(bad) = salt.as_ref().filter(|salt| !is_salt(salt)) {
            return Err(InvalidVerityRoot::Salt(bad.clone()));
        }
        Ok(Self { root_hash: roothash.to_ascii_lowercase(), hash_offset: hashoffset, salt })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_a_hash_and_an_offset() {
        let hash = "AB".repeat(32);
        let root =
            VerityRoot::parse(format!(r#"{{"roothash":"{hash}","hashoffset":4096}}"#).as_bytes()).unwrap();
        assert_eq!((root.root_hash, root.hash_offset), ("ab".repeat(32), 4096));
        for bad in [
            r#"{"roothash":"ab","hashoffset":4096}"#.to_owned(),
            format!(r#"{{"roothash":"{hash}","hashoffset":7}}"#),
            format!(r#"{{"roothash":"{hash}","hashoffset":4096,"salt":"0 1"}}"#),
            "{}".into(),
        ] {
            assert!(VerityRoot::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
