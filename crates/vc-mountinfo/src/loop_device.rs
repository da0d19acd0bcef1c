//! The file behind a loop device.
//!
//! The name comes from sysfs, where it is whole and follows renames; the proof comes from the driver, which
//! knows the device and inode of its file (`LOOP_GET_STATUS64`, loop(4)). A name alone proves nothing: it
//! may be of a deleted file, of another mount namespace, or of a bind mount that is gone.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::sys::ioctl::{self, LoopStatus};
use crate::{DeviceNumber, FileId};

mod error;
mod sysfs;

pub use error::LoopError;
use sysfs::{Node, Partition};
#[cfg(fuzzing)]
pub(crate) use sysfs::{parse_backing_file, parse_number};

/// What stands behind a loop device or a partition of one, proven by device and inode.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopFile {
    /// The N of `/dev/loopN`.
    pub number: u32,
    /// The partition asked about; `None` for the whole device.
    pub partition: Option<u32>,
    /// The file's name now, absolute.
    pub path: PathBuf,
    /// The file's identity.
    pub id: FileId,
    /// Where in the file the device starts, in bytes; a partition's start is added.
    pub offset: u64,
    /// How many bytes of the file the device has at most; `None` for all after the offset.
    pub size_limit: Option<NonZeroU64>,
    /// Whether the device refuses writes.
    pub read_only: bool,
    /// Whether the device detaches itself when its last user closes it.
    pub autoclear: bool,
    /// Whether the driver bypasses the page cache of the file.
    pub direct_io: bool,
    /// The number of this attachment, that no other one of any disk has (Linux 5.15).
    pub disk_sequence: Option<u64>,
}

impl LoopFile {
    /// What is behind the device with this number, such as the `st_dev` of a filesystem mounted from it.
    ///
    /// The device can be detached and attached anew at any time, unless the caller holds it: by a
    /// [`Pin`](crate::Pin) on a mount of it, or by an open handle.
    ///
    /// # Errors
    /// [`LoopError`] tells which of the many ways this can fail it was. Needs the right to open the device
    /// for reading, which only root and the group `disk` have.
    pub fn behind(device: DeviceNumber) -> Result<Self, LoopError> {
        let node = Node::find(device)?;
        let handle = open(&node)?;
        let (path, error) = match look(&node, &handle)? {
            Ok(file) => return Ok(file),
            Err(failure) => failure,
        };
        // The file may have been renamed between the reading of its name and the look at it.
        const TRIES: usize = 3;
        let mut renamed = false;
        for _ in 0..TRIES {
            match look(&node, &handle)? {
                Ok(file) => return Ok(file),
                Err((again, _)) => renamed |= again != path,
            }
        }
        if renamed {
            return Err(LoopError::Renamed { number: node.number, before: path });
        }
        Err(error.explain(node.number, path))
    }

    /// The file, if the device is all of it.
    ///
    /// # Errors
    /// [`LoopError::Window`] when the device starts within the file or ends before it.
    pub fn whole_file(&self) -> Result<&Path, LoopError> {
        if self.offset == 0 && self.size_limit.is_none() {
            return Ok(&self.path);
        }
        Err(LoopError::Window {
            number: self.number,
            path: self.path.clone(),
            offset: self.offset,
            size_limit: self.size_limit,
        })
    }

    /// Checks that the device still is what it was, and its file has the name it had.
    ///
    /// # Errors
    /// [`LoopError::Rebound`] or [`LoopError::Detached`] when the device is not; [`LoopError::Renamed`] or
    /// [`LoopError::Deleted`] when the name is not; others as of [`behind`](Self::behind).
    pub fn check_unchanged(&self) -> Result<(), LoopError> {
        let node = Node::whole(self.number)?;
        let handle = open(&node)?;
        let now = Attachment::read(&node, &handle)?;
        if now.id() != self.id || now.disk_sequence != self.disk_sequence {
            return Err(LoopError::Rebound { number: self.number });
        }
        match look(&node, &handle)? {
            Ok(file) if file.path == self.path => Ok(()),
            Ok(_) => Err(LoopError::Renamed { number: self.number, before: self.path.clone() }),
            Err((path, error)) => Err(error.explain(self.number, path)),
        }
    }

    fn new(node: &Node, path: PathBuf, id: FileId, attachment: &Attachment) -> Result<Self, LoopError> {
        const AUTOCLEAR: u32 = 4;
        const DIRECT_IO: u32 = 16;
        let status = &attachment.status;
        let (start, limit) = match node.partition {
            Some(Partition { start, size, .. }) => (start, NonZeroU64::new(size)),
            None => (0, NonZeroU64::new(status.size_limit)),
        };
        Ok(Self {
            number: node.number,
            partition: node.partition.map(|partition| partition.number),
            path,
            id,
            offset: status.offset.saturating_add(start),
            size_limit: limit,
            read_only: node.is_read_only()?,
            autoclear: status.flags & AUTOCLEAR != 0,
            direct_io: status.flags & DIRECT_IO != 0,
            disk_sequence: attachment.disk_sequence,
        })
    }
}

/// What is attached, in a form that shows whether it changed.
#[derive(PartialEq, Eq)]
struct Attachment {
    status: LoopStatus,
    disk_sequence: Option<u64>,
}

impl Attachment {
    fn read(node: &Node, handle: &File) -> Result<Self, LoopError> {
        let status = ioctl::loop_status(handle.as_fd()).map_err(|source| match source.raw_os_error() {
            Some(libc::ENXIO) => LoopError::Detached { number: node.number },
            _ => LoopError::Device { path: node.dev_path(), source },
        })?;
        // Not there before Linux 5.15; then device and inode have to do.
        Ok(Self { status, disk_sequence: ioctl::disk_sequence(handle.as_fd()).ok() })
    }

    fn id(&self) -> FileId {
        FileId { device: self.status.device, inode: self.status.inode }
    }
}

/// Reads the name once and looks whether it is that of the file behind the device; if not, the name and why.
fn look(node: &Node, handle: &File) -> Result<Result<LoopFile, (PathBuf, NoIdentity)>, LoopError> {
    let attachment = Attachment::read(node, handle)?;
    let path = node.backing_file()?;
    let found = identity(&path, &attachment.status);
    let mut again = Attachment::read(node, handle)?;
    // Flags may change while in use; what counts is which file it is.
    again.status.flags = attachment.status.flags;
    if again != attachment {
        return Err(LoopError::Rebound { number: node.number });
    }
    match found {
        Ok(id) => LoopFile::new(node, path, id, &attachment).map(Ok),
        Err(error) => Ok(Err((path, error))),
    }
}

/// Opens the whole device. The handle keeps it from being attached to another file.
fn open(node: &Node) -> Result<File, LoopError> {
    let path = node.dev_path();
    let failed = |source| LoopError::Device { path: path.clone(), source };
    let handle = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).map_err(failed)?;
    let metadata = handle.metadata().map_err(failed)?;
    if metadata.file_type().is_block_device() && DeviceNumber::from_raw(metadata.rdev()) == node.device {
        return Ok(handle);
    }
    Err(LoopError::WrongNode { path, device: node.device })
}

/// Why a name is not that of the file behind the device.
enum NoIdentity {
    Stat(io::Error),
    OtherFile,
}

fn identity(path: &Path, status: &LoopStatus) -> Result<FileId, NoIdentity> {
    let id = FileId::from(&path.metadata().map_err(NoIdentity::Stat)?);
    let same = id == FileId { device: status.device, inode: status.inode };
    if same { Ok(id) } else { Err(NoIdentity::OtherFile) }
}

impl NoIdentity {
    /// What a name that stays and does not fit means.
    fn explain(self, number: u32, path: PathBuf) -> LoopError {
        let bytes = path.as_os_str().as_bytes();
        if let Some(name) = bytes.strip_suffix(b" (deleted)") {
            let path = crate::bytes::path_buf(name.to_vec());
            return LoopError::Deleted { number, path };
        }
        match self {
            Self::Stat(source) if source.kind() != io::ErrorKind::NotFound => {
                LoopError::File { path, source }
            }
            Self::Stat(_) | Self::OtherFile => LoopError::Elsewhere { number, path },
        }
    }
}
