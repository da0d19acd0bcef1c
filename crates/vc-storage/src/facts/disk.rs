//! What is known about disks and images: whether they can be written to, and whether the host uses them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use vc_device::{Access, PathKind, request_of_disk};
use vc_mountinfo::{DeviceUse, device_uses, loops_of_file};
use vc_types::HostPath;

use super::gather::{FactsError, Host, kind_of};
use super::{DiskFacts, VerityFacts};
use crate::rootfs::VerityRoot;

impl Host<'_> {
    /// What is known about a disk that only one machine may have.
    pub(super) fn disk(&self, path: &HostPath) -> Result<DiskFacts, FactsError> {
        let Some((kind, _)) = kind_of(path)? else { return Ok(DiskFacts::default()) };
        let identity =
            request_of_disk(path, &kind, Access::ReadOnly).ok().map(|asked| asked.source.identity());
        let is_held = identity.is_some_and(|identity| self.around.held.contains(&identity));
        let (read_only, uses) = match &kind {
            PathKind::Block(number) => {
                let flag = format!("/sys/dev/block/{}:{}/ro", number.major(), number.minor());
                let flag = fs::read_to_string(&flag)
                    .map_err(|source| FactsError::Look { path: flag.into(), source })?;
                (flag.trim() == "1", if is_held { Vec::new() } else { device_uses(path)? })
            }
            PathKind::Regular(_) => {
                // Opened for a moment: mounts, attributes and rights all have a say.
                let read_only = File::options().read(true).write(true).open(path).is_err();
                let file = File::open(path)
                    .map_err(|source| FactsError::Look { path: path.as_path().into(), source })?;
                let device =
                    |number| DeviceUse::Loop { device: vc_mountinfo::DeviceNumber::new(7, number), number };
                (read_only, loops_of_file(&file)?.into_iter().map(device).collect())
            }
            _ => (false, Vec::new()),
        };
        Ok(DiskFacts { kind: Some(kind), read_only, uses })
    }
}

/// The superblock of dm-verity (`Documentation/admin-guide/device-mapper/verity.rst`, and cryptsetup's
/// description of the format).
const SUPERBLOCK: usize = 512;

/// What proves an image, by the file that the snapshotter wrote beside it and by the image itself.
pub(super) fn verity(root_file: &HostPath, image: &File) -> Result<VerityFacts, FactsError> {
    let path = || root_file.as_path().to_path_buf();
    let text = read_small(root_file)?;
    let root = VerityRoot::parse(&text).map_err(|source| FactsError::Verity { path: path(), source })?;
    let mut bytes = [0; SUPERBLOCK];
    let whole = image.read_exact_at(&mut bytes, root.hash_offset).is_ok();
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let has_superblock = whole && bytes.starts_with(b"verity\0\0") && number(8) == 1;
    let (data_block, hash_block) = if has_superblock { (number(64), number(68)) } else { (4096, 4096) };
    Ok(VerityFacts { root, has_superblock, data_block, hash_block })
}

/// The most bytes of a file that describes something.
const MOST: u64 = 64 * 1024;

/// Reads a small file.
pub(super) fn read_small(path: &HostPath) -> Result<Vec<u8>, FactsError> {
    use std::io::Read;
    let failed = |source| FactsError::Look { path: path.as_path().into(), source };
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MOST + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MOST {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(text)
}
