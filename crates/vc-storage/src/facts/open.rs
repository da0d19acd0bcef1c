//! Images that are open already, and opening those that are not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use vc_device::{
    Access, BlockBackend, BlockSpec, DeviceIdentity, DeviceSource, DeviceSpec, InvalidPartitions,
    PartitionImage, PartitionedSpec, PathKind, Serial, request_of_disk,
};
use vc_types::{DeviceId, HostPath};

use crate::plan::{DiskPlan, DiskUse};
use crate::volume::DirectVolume;

/// Open images, by what tells them from others.
#[derive(Clone, Debug, Default)]
pub struct OpenImages(BTreeMap<DeviceIdentity, Arc<File>>);

/// Why a disk of a plan cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// Where.
        path: HostPath,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else has it.
    #[error("{path} is in use on this host now: it cannot be opened for this machine alone")]
    InUse {
        /// Where.
        path: HostPath,
    },
    /// There is something else by that name now.
    #[error("{path} is not what it was when the plan was made")]
    Changed {
        /// Where.
        path: HostPath,
    },
    /// A disk of nothing, or of something that is no disk.
    #[error("it is no disk or image")]
    NoDisk,
    /// Images that do not go on one disk.
    #[error("its images do not go on one disk")]
    Partitions(#[from] InvalidPartitions),
}

impl OpenImages {
    /// Keeps an open image.
    pub fn keep(&mut self, image: &DeviceSource, file: Arc<File>) {
        self.0.insert(image.identity(), file);
    }

    /// The device that a disk of a plan is, by the name that it gets.
    ///
    /// A block device is opened for this machine alone (`O_EXCL`, open(2)), so that the host cannot mount it
    /// as long as the machine has it.
    ///
    /// # Errors
    /// [`OpenError`] when it cannot be opened, or is not what was planned with.
    pub fn device(
        &self,
        disk: &DiskPlan,
        id: DeviceId,
        serial: Option<Serial>,
    ) -> Result<DeviceSpec, OpenError> {
        let mut opened = Vec::new();
        for image in &disk.images {
            opened.push(self.open(image, disk.access)?);
        }
        if disk.holds == DiskUse::Layers {
            let images =
                opened.into_iter().map(|Opened { file, name, size, .. }| PartitionImage { file, name, size });
            return Ok(PartitionedSpec::new(id, images.collect(), serial)?.into());
        }
        let Some(Opened { file, name, backend, .. }) = opened.pop() else { return Err(OpenError::NoDisk) };
        let block = BlockSpec::new(id, file, name, disk.access);
        Ok(BlockSpec { serial, backend, ..block }.into())
    }

    fn open(&self, image: &DeviceSource, access: Access) -> Result<Opened, OpenError> {
        let (path, backend) = match image {
            DeviceSource::File { path, .. } => (path, BlockBackend::File),
            DeviceSource::Block { path, .. } => (path, BlockBackend::HostDevice),
            _ => return Err(OpenError::NoDisk),
        };
        let failed = |source| OpenError::Open { path: path.clone(), source };
        let file = match self.0.get(&image.identity()) {
            Some(file) => Arc::clone(file),
            None => Arc::new(open(path, access, backend == BlockBackend::HostDevice)?),
        };
        let stat = file.metadata().map_err(failed)?;
        let is_same = PathKind::try_from(&stat).is_ok_and(|kind| image.is_opened(&kind));
        if !is_same {
            return Err(OpenError::Changed { path: path.clone() });
        }
        Ok(Opened { file, name: path.clone(), size: stat.len(), backend })
    }
}

struct Opened {
    file: Arc<File>,
    name: HostPath,
    size: u64,
    backend: BlockBackend,
}

fn open(path: &HostPath, access: Access, alone: bool) -> Result<File, OpenError> {
    let flags = if alone { libc_flags::EXCLUSIVE } else { 0 };
    let write = access == Access::ReadWrite;
    // Without O_NONBLOCK, opening a FIFO that has taken the name would wait for a writer.
    let opened =
        File::options().read(true).write(write).custom_flags(flags | libc_flags::NONBLOCK).open(path);
    opened.map_err(|source| match source.kind() {
        io::ErrorKind::ResourceBusy => OpenError::InUse { path: path.clone() },
        _ => OpenError::Open { path: path.clone(), source },
    })
}

/// Opens a file that nobody has to have alone. A FIFO or a device that has taken the name holds nobody up.
pub(super) fn open_read_only(path: &HostPath) -> io::Result<File> {
    File::options().read(true).custom_flags(libc_flags::NONBLOCK).open(path)
}

/// The disk of a volume that a CSI driver has left to the runtime: which it is, and how many bytes it has now.
///
/// # Errors
/// [`OpenError`] when it cannot be opened, or is no disk.
pub fn disk_of_volume(volume: &DirectVolume) -> Result<(DeviceIdentity, u64), OpenError> {
    let path = &volume.device;
    let failed = |source| OpenError::Open { path: path.clone(), source };
    let file = open_read_only(path).map_err(failed)?;
    let kind = PathKind::try_from(&file.metadata().map_err(failed)?).map_err(|_| OpenError::NoDisk)?;
    let request = request_of_disk(path, &kind, Access::ReadOnly).map_err(|_| OpenError::NoDisk)?;
    Ok((request.source.identity(), size(&file).map_err(failed)?))
}

/// How many bytes a file or a block device has. Nobody reads it from where it stands.
fn size(mut file: &File) -> io::Result<u64> {
    file.seek(io::SeekFrom::End(0))
}

/// Flags of open(2) as the standard library takes them.
mod libc_flags {
    use rustix::fs::OFlags;

    pub(super) const EXCLUSIVE: i32 = OFlags::EXCL.bits().cast_signed();
    pub(super) const NONBLOCK: i32 = OFlags::NONBLOCK.bits().cast_signed();
}
