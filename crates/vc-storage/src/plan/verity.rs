//! dm-verity in the words of Kata's agent.

use crate::facts::VerityFacts;
use crate::rootfs::{DmVerityInfo, HashType};

/// Options that make the agent check a layer against its root hash.
pub(super) fn of_layer(verity: &VerityFacts) -> Vec<String> {
    let mut options = vec![
        "X-kata.dmverity-enabled=true".to_owned(),
        format!("X-kata.dmverity.roothash={}", verity.root.root_hash),
        format!("X-kata.dmverity.hashoffset={}", verity.root.hash_offset),
        format!("X-kata.dmverity.blocksize={}", verity.data_block),
        format!("X-kata.dmverity.hashsize={}", verity.hash_block),
    ];
    if !verity.has_superblock {
        // Then nothing on the disk tells the salt; containerd's is zeros.
        let zeros = || "00".repeat(32);
        let salt = verity.root.salt.clone().unwrap_or_else(zeros);
        options.extend([
            "X-kata.dmverity.no-superblock=true".to_owned(),
            format!("X-kata.dmverity.salt={salt}"),
        ]);
    }
    options
}

/// The same for a virtual volume, which has neither a superblock nor a salt.
pub(super) fn of_volume(verity: &DmVerityInfo) -> Vec<String> {
    let algorithm = match verity.hashtype {
        HashType::Sha256 => "sha256",
        HashType::Sha1 => "sha1",
    };
    let hash = verity.hash.to_ascii_lowercase();
    let fields: [(&str, &dyn std::fmt::Display); 6] = [
        ("roothash", &hash),
        ("hashoffset", &verity.offset),
        ("blocksize", &verity.blocksize),
        ("hashsize", &verity.hashsize),
        ("algorithm", &algorithm),
        ("no-superblock", &true),
    ];
    let options = fields.iter().map(|(name, value)| format!("X-kata.dmverity.{name}={value}"));
    ["X-kata.dmverity-enabled=true".to_owned()].into_iter().chain(options).collect()
}
