//! The image file behind one mounted EROFS layer.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::image::{ErofsImage, ImageError};
use crate::loop_device::{LoopError, LoopFile};
use crate::sys::filesystem_size;
use crate::sys::ioctl::filesystem_uuid;
use crate::{DeviceNumber, LookupError, Mount, Pin, PinError};

/// The image behind one layer.
#[derive(Debug)]
#[non_exhaustive]
pub struct LayerImage {
    /// The directory it is mounted at.
    pub directory: PathBuf,
    /// The image file, open and checked.
    pub image: ErofsImage,
    /// How it is mounted.
    pub via: Via,
    /// Whether the file's UUID was compared with the mounted filesystem's.
    pub uuid_check: UuidCheck,
    /// Whether the overlay uses it for data only.
    pub data_only: bool,
}

/// How an image is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// Through a loop device, which proves which file it is.
    Loop(LoopFile),
    /// As a file, without a block device (Linux 6.12): only the name given to mount(2) is known, so the
    /// UUID is all the evidence.
    File,
}

/// What the comparison of UUIDs came to. When they differ, or the sizes do, there is no layer but an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UuidCheck {
    /// They are the same. Copies of an image share it.
    Same,
    /// The image has none; only block size and number of blocks were compared.
    None,
    /// The kernel does not tell that of the mounted filesystem (before Linux 6.9).
    Unknown,
}

/// Why the image file behind a layer is not known, or not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The directory cannot be opened.
    #[error("cannot open the layer")]
    Open(#[source] PinError),
    /// The mount at the directory is not known.
    #[error("cannot tell what is mounted at {directory:?}")]
    Lookup {
        /// The layer's directory.
        directory: PathBuf,
        /// What failed.
        source: LookupError,
    },
    /// Another filesystem is mounted there.
    #[error("{directory:?} is a mount of {fs_type:?}, not of EROFS")]
    NotErofs {
        /// The layer's directory.
        directory: PathBuf,
        /// The type of filesystem.
        fs_type: OsString,
    },
    /// Only a directory of the image is mounted.
    #[error("only {root:?} of the EROFS image is mounted at {directory:?}")]
    PartOfImage {
        /// The layer's directory.
        directory: PathBuf,
        /// What of the image is mounted.
        root: PathBuf,
    },
    /// The image starts within its file or device (mount option `fsoffset`).
    #[error("the EROFS image at {directory:?} starts within its file, at byte {offset}")]
    Offset {
        /// The layer's directory.
        directory: PathBuf,
        /// The option's value.
        offset: String,
    },
    /// It is mounted from a disk that is no loop device; there is no file.
    #[error("{directory:?} is mounted from the block device {device}, not from a file")]
    BlockDevice {
        /// The layer's directory.
        directory: PathBuf,
        /// The device.
        device: DeviceNumber,
    },
    /// The loop device does not lead to a usable file.
    #[error("cannot tell which file is mounted at {directory:?}")]
    Loop {
        /// The layer's directory.
        directory: PathBuf,
        /// What failed.
        source: LoopError,
    },
    /// The mount was made by a name that means nothing here.
    #[error(
        "{directory:?} was mounted from {name:?}, a name only its mounter knows; mount it by an absolute path"
    )]
    NoPath {
        /// The layer's directory.
        directory: PathBuf,
        /// The source of the mount.
        name: PathBuf,
    },
    /// The file was deleted or renamed after the mount, or belongs to another mount namespace.
    #[error(
        "{file:?}, from which {directory:?} was mounted, is not there any more; was it renamed or deleted?"
    )]
    Missing {
        /// The layer's directory.
        directory: PathBuf,
        /// The source of the mount.
        file: PathBuf,
    },
    /// The file is no image.
    #[error("the file behind {directory:?} cannot serve as a layer")]
    Image {
        /// The layer's directory.
        directory: PathBuf,
        /// What is wrong with it.
        source: ImageError,
    },
    /// The name now means another file than the one that is mounted.
    #[error("{file:?} is not what is mounted at {directory:?}: it was replaced")]
    Replaced {
        /// The layer's directory.
        directory: PathBuf,
        /// The source of the mount.
        file: PathBuf,
    },
}

/// The image behind the mount of which `pin` is the root.
pub(super) fn image_of(
    directory: &Path,
    pin: &Pin,
    mount: Result<Mount<'_>, LookupError>,
) -> Result<LayerImage, LayerError> {
    let mount = mount.map_err(|source| LayerError::Lookup { directory: directory.into(), source })?;
    check_whole(&mount, directory)?;
    let (image, via) = if mount.device.is_anonymous() {
        (open_source(Path::new(&mount.source), directory)?, Via::File)
    } else {
        let (image, file) = open_loop(mount.device, directory)?;
        (image, Via::Loop(file))
    };
    let uuid_check = compare(pin, &image)
        .ok_or_else(|| LayerError::Replaced { directory: directory.into(), file: image.path().into() })?;
    Ok(LayerImage { directory: directory.into(), image, via, uuid_check, data_only: false })
}

/// Checks that this is all of one EROFS filesystem, from the start of its device or file.
fn check_whole(mount: &Mount<'_>, directory: &Path) -> Result<(), LayerError> {
    let directory = || directory.to_path_buf();
    if *mount.fs_type != *"erofs" {
        return Err(LayerError::NotErofs {
            directory: directory(),
            fs_type: mount.fs_type.clone().into_owned(),
        });
    }
    if let Some(root) = mount.root.as_deref().filter(|root| *root != Path::new("/")) {
        return Err(LayerError::PartOfImage { directory: directory(), root: root.into() });
    }
    let options = mount.fs_options.as_deref().unwrap_or(OsStr::new("")).as_bytes();
    match options.split(|b| *b == b',').find_map(|option| option.strip_prefix(b"fsoffset=")) {
        Some(offset) if offset != b"0" => {
            Err(LayerError::Offset { directory: directory(), offset: offset.escape_ascii().to_string() })
        }
        _ => Ok(()),
    }
}

fn open_loop(device: DeviceNumber, directory: &Path) -> Result<(ErofsImage, LoopFile), LayerError> {
    let directory = || directory.to_path_buf();
    let failed = |source| match source {
        LoopError::NotLoop { device } => LayerError::BlockDevice { directory: directory(), device },
        source => LayerError::Loop { directory: directory(), source },
    };
    let file = LoopFile::behind(device).map_err(failed)?;
    let path = file.whole_file().map_err(failed)?;
    let image = open_image(path, &directory())?;
    // The name may have come to mean another file since it was read.
    if image.id() != file.id {
        return Err(LayerError::Replaced { directory: directory(), file: image.path().into() });
    }
    Ok((image, file))
}

/// Opens the file that a mount without a block device was made from.
fn open_source(source: &Path, directory: &Path) -> Result<ErofsImage, LayerError> {
    // A path below /proc, such as /proc/self/fd/3, means something else to each process.
    if source.is_relative() || source.starts_with("/proc") {
        return Err(LayerError::NoPath { directory: directory.into(), name: source.into() });
    }
    open_image(source, directory)
}

fn open_image(path: &Path, directory: &Path) -> Result<ErofsImage, LayerError> {
    let directory = directory.to_path_buf();
    ErofsImage::open(path).map_err(|error| match error {
        ImageError::Open { path: file, source } if source.kind() == io::ErrorKind::NotFound => {
            LayerError::Missing { directory, file }
        }
        source => LayerError::Image { directory, source },
    })
}

/// Compares the mounted filesystem with the image; `None` when they differ.
fn compare(root: &Pin, image: &ErofsImage) -> Option<UuidCheck> {
    const NONE: [u8; 16] = [0; 16];
    let of_image = image.superblock();
    // Tells images without a UUID apart, as far as their sizes differ.
    let size = filesystem_size(root.as_fd()).ok();
    if size.is_some_and(|mounted| mounted != (u64::from(of_image.block_size), of_image.blocks)) {
        return None;
    }
    // The ioctl does not take O_PATH handles.
    let opened = File::open(format!("/proc/thread-self/fd/{}", root.as_fd().as_raw_fd()));
    match (opened.and_then(|root| filesystem_uuid(root.as_fd())), of_image.uuid) {
        (Ok(NONE) | Err(_), NONE) => Some(UuidCheck::None),
        (Ok(mounted), of_image) => (mounted == of_image).then_some(UuidCheck::Same),
        (Err(_), _) => Some(UuidCheck::Unknown),
    }
}
