//! Layers whose bytes are verified as they are read (dm-verity).
//!
//! The root hash is what is trusted: with any other number wrong, the hashes do not come out.
//! Facts: the kernel's `Documentation/admin-guide/device-mapper/verity.rst`, and cryptsetup's
//! description of the superblock.

use crate::device_mapper::{Device, MapperError};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Why a verified device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VerityError {
    /// An option that is missing or malformed.
    #[error("the option X-kata.dmverity.{0} is missing or not usable")]
    Option(String),
    /// The device cannot be read.
    #[error("cannot read the superblock of the hashes")]
    Read(#[source] std::io::Error),
    /// What is on the device is no superblock.
    #[error("there is no superblock at byte {0}: was the layer made with no-superblock?")]
    Superblock(u64),
    /// The superblock says otherwise than the options.
    #[error("the superblock has another {0} than the options")]
    Contradiction(&'static str),
    /// The device mapper refuses.
    #[error(transparent)]
    Mapper(#[from] MapperError),
}

/// How the bytes of a layer are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerityOptions {
    root_hash: String,
    /// Where the hashes begin, in bytes; what is before is data.
    hash_offset: u64,
    has_superblock: bool,
    parameters: Parameters,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameters {
    /// In hexadecimal digits; `-` for none.
    salt: String,
    data_block: u32,
    hash_block: u32,
    algorithm: String,
    hash_type: u32,
}

impl VerityOptions {
    /// Reads the keys after `X-kata.dmverity.`; `enabled` among them is passed over.
    ///
    /// # Errors
    /// [`VerityError::Option`] names the key.
    pub(super) fn parse(options: &[(&str, &str)]) -> Result<Self, VerityError> {
        let mut parsed = Self {
            root_hash: String::new(),
            hash_offset: 0,
            has_superblock: true,
            parameters: Parameters {
                salt: "-".to_owned(),
                data_block: 4096,
                hash_block: 4096,
                algorithm: "sha256".to_owned(),
                hash_type: 1,
            },
        };
        for (key, value) in options {
            parsed.set(key, value).ok_or_else(|| VerityError::Option((*key).to_owned()))?;
        }
        if parsed.root_hash.is_empty() {
            return Err(VerityError::Option("roothash".to_owned()));
        }
        if parsed.hash_offset == 0 || !parsed.hash_offset.is_multiple_of(parsed.parameters.data_block.into())
        {
            return Err(VerityError::Option("hashoffset".to_owned()));
        }
        Ok(parsed)
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        let block = || {
            value.parse().ok().filter(|size: &u32| size.is_power_of_two() && (512..=65_536).contains(size))
        };
        let parameters = &mut self.parameters;
        match key {
            "enabled" => {}
            "roothash" => self.root_hash = hexadecimal(value).filter(|hash| !hash.is_empty())?,
            "hashoffset" => self.hash_offset = value.parse().ok()?,
            "no-superblock" => self.has_superblock = !value.parse::<bool>().ok()?,
            "salt" if value.is_empty() || value == "-" => "-".clone_into(&mut parameters.salt),
            "salt" => parameters.salt = hexadecimal(value)?,
            "blocksize" => parameters.data_block = block()?,
            "hashsize" => parameters.hash_block = block()?,
            "algorithm" => parameters.algorithm = algorithm(value)?,
            "hashtype" => parameters.hash_type = value.parse().ok().filter(|kind| *kind <= 1)?,
            _ => return None,
        }
        Some(())
    }

    /// The target's line for the device mapper, and the size of the data in bytes.
    fn target(&self, device: &Path) -> Result<(String, u64), VerityError> {
        let (parameters, blocks, hash_start) = if self.has_superblock {
            let mut bytes = [0; SUPERBLOCK];
            let file = File::open(device).map_err(VerityError::Read)?;
            file.read_exact_at(&mut bytes, self.hash_offset).map_err(VerityError::Read)?;
            let (parameters, blocks) =
                parse_superblock(&bytes).ok_or(VerityError::Superblock(self.hash_offset))?;
            let end = blocks.checked_mul(parameters.data_block.into()).filter(|end| *end <= self.hash_offset);
            end.ok_or(VerityError::Contradiction("number of blocks"))?;
            if parameters.data_block != self.parameters.data_block {
                return Err(VerityError::Contradiction("block size"));
            }
            let first =
                self.hash_offset.saturating_add(SUPERBLOCK as u64).div_ceil(parameters.hash_block.into());
            (parameters, blocks, first)
        } else {
            let own = &self.parameters;
            let blocks = self.hash_offset / u64::from(own.data_block);
            (own.clone(), blocks, self.hash_offset / u64::from(own.hash_block))
        };
        let Parameters { salt, data_block, hash_block, algorithm, hash_type } = &parameters;
        let (device, root) = (device.display(), &self.root_hash);
        let line = format!(
            "{hash_type} {device} {device} {data_block} {hash_block} {blocks} {hash_start} {algorithm} {root} {salt}"
        );
        Ok((line, blocks * u64::from(*data_block)))
    }
}

/// A verified device; it stays until it is removed.
#[derive(Debug)]
pub(super) struct VerityDevice(Device);

impl VerityDevice {
    /// Makes the device on top of `lower`, such as `/dev/vdb`. The module `dm_verity` must be loaded.
    pub(super) fn create(options: &VerityOptions, lower: &Path) -> Result<Self, VerityError> {
        let (line, size) = options.target(lower)?;
        Ok(Self(Device::create("verity", &line, size)?))
    }

    /// The node to mount.
    pub(super) fn node(&self) -> PathBuf {
        self.0.node()
    }

    /// Removes the device, once its last user has closed it.
    pub(super) fn remove(self) -> Result<(), super::StorageError> {
        let node = self.node();
        self.0.remove().map_err(|error| super::StorageError::Verity(node, error.into()))
    }
}

/// The bytes of a superblock.
const SUPERBLOCK: usize = 512;

/// The parameters of a superblock of version 1, and the number of data blocks.
fn parse_superblock(bytes: &[u8; SUPERBLOCK]) -> Option<(Parameters, u64)> {
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let block =
        |at: usize| Some(number(at)).filter(|size| size.is_power_of_two() && (512..=65_536).contains(size));
    if !bytes.starts_with(b"verity\0\0") || number(8) != 1 {
        return None;
    }
    let name = bytes[32..64].split(|byte| *byte == 0).next()?;
    let salt_length = usize::from(u16::from_le_bytes([bytes[80], bytes[81]]));
    let salt = bytes[88..344].get(..salt_length)?;
    let salt: String = salt.iter().map(|byte| format!("{byte:02x}")).collect();
    let parameters = Parameters {
        salt: if salt.is_empty() { "-".to_owned() } else { salt },
        data_block: block(64)?,
        hash_block: block(68)?,
        algorithm: algorithm(str::from_utf8(name).ok()?)?,
        hash_type: Some(number(12)).filter(|kind| *kind <= 1)?,
    };
    Some((parameters, u64::from(number(72)) | u64::from(number(76)) << 32))
}

fn hexadecimal(text: &str) -> Option<String> {
    let plain =
        text.len().is_multiple_of(2) && text.len() <= 512 && text.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| text.to_ascii_lowercase())
}

/// A name of the kernel's crypto interface; it stands in a line whose parts are separated by spaces.
fn algorithm(text: &str) -> Option<String> {
    let plain = (1..32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    plain.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: (&str, &str) = ("roothash", "00FF");

    #[test]
    fn without_a_superblock_the_options_say_everything() {
        let options = [
            ("enabled", "true"),
            ROOT,
            ("hashoffset", "12288"),
            ("no-superblock", "true"),
            ("salt", "abcd"),
            ("blocksize", "4096"),
            ("hashsize", "1024"),
            ("algorithm", "sha512"),
            ("hashtype", "1"),
        ];
        let options = VerityOptions::parse(&options).unwrap();
        let (line, size) = options.target(Path::new("/dev/vdb")).unwrap();
        assert_eq!(line, "1 /dev/vdb /dev/vdb 4096 1024 3 12 sha512 00ff abcd");
        assert_eq!(size, 12_288);
    }

    /// As `veritysetup format --hash-offset=8192 --salt=0102 --uuid=…` of cryptsetup 2.6 writes it.
    fn superblock() -> [u8; SUPERBLOCK] {
        let mut bytes = [0; SUPERBLOCK];
        bytes[..8].copy_from_slice(b"verity\0\0");
        bytes[8] = 1;
        bytes[12] = 1;
        bytes[32..38].copy_from_slice(b"sha256");
        bytes[64..68].copy_from_slice(&4096u32.to_le_bytes());
        bytes[68..72].copy_from_slice(&4096u32.to_le_bytes());
        bytes[72] = 2;
        bytes[80] = 2;
        bytes[88..90].copy_from_slice(&[1, 2]);
        bytes
    }

    #[test]
    fn a_superblock_says_what_the_options_leave_out_and_may_not_contradict_them() {
        let device = tempfile::NamedTempFile::new().unwrap();
        device.as_file().write_all_at(&superblock(), 8192).unwrap();
        let target = |options: &[(&str, &str)]| VerityOptions::parse(options).unwrap().target(device.path());
        let (line, size) = target(&[ROOT, ("hashoffset", "8192")]).unwrap();
        let name = device.path().display();
        assert_eq!(line, format!("1 {name} {name} 4096 4096 2 3 sha256 00ff 0102"));
        assert_eq!(size, 8192);
        assert!(matches!(target(&[ROOT, ("hashoffset", "4096")]), Err(VerityError::Superblock(4096))));
        let other = target(&[ROOT, ("hashoffset", "8192"), ("blocksize", "1024")]);
        assert!(matches!(other, Err(VerityError::Contradiction("block size"))));
        // More data blocks than there is room for before the hashes.
        device.as_file().write_all_at(&[3], 8192 + 72).unwrap();
        let long = target(&[ROOT, ("hashoffset", "8192")]);
        assert!(matches!(long, Err(VerityError::Contradiction("number of blocks"))));
    }

    #[test]
    fn what_could_change_the_line_is_refused() {
        let cases = [
            ("roothash", ""),
            ("roothash", "0 1"),
            ("roothash", "xy"),
            ("salt", "0"),
            ("algorithm", "sha256 x"),
            ("algorithm", ""),
            ("blocksize", "4095"),
            ("hashsize", "256"),
            ("hashtype", "2"),
            ("hashoffset", "1"),
            ("hashoffset", "-4096"),
            ("no-superblock", "yes"),
            ("frobnicate", "1"),
        ];
        for bad in cases {
            let error = VerityOptions::parse(&[ROOT, ("hashoffset", "4096"), bad]).unwrap_err();
            assert!(matches!(error, VerityError::Option(key) if key == bad.0), "{bad:?}");
        }
        assert!(VerityOptions::parse(&[("hashoffset", "4096")]).is_err());
    }
}
