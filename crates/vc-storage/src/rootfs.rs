//! What a snapshotter's mounts say about a root file system. Pure: nothing is looked up on the host.

mod image;
mod list;
mod nydus;
mod options;
mod template;
mod virtual_volume;

use serde::Serialize;
use vc_types::{HostPath, InvalidPath};

use crate::mount::Mount;

pub use image::{InvalidVerityRoot, VerityRoot};
pub use nydus::{InvalidNydus, NydusExtra};
pub use options::{InvalidOption, MakeDirectory, MakeFilesystem};
pub use template::TemplateError;
pub use virtual_volume::{
    DmVerityInfo, HashType, ImagePull, InvalidVirtualVolume, NydusImage, VIRTUAL_VOLUME_OPTION,
    VirtualVolume, VolumeMetadata, VolumeType,
};

/// A root file system as its mounts describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
pub enum Rootfs {
    /// Read-only EROFS layers, and what the container writes above them.
    Layers(Layers),
    /// A file system in a block device or an image file that nobody has mounted.
    Block(BlockRootfs),
    /// A directory of the host.
    Directory {
        /// The directory.
        source: HostPath,
        /// Whether it is bound read-only.
        read_only: bool,
    },
    /// A RAFS image that nydusd serves.
    Nydus(NydusExtra),
    /// Volumes in Kata's own description.
    Volumes {
        /// The volumes, in the order of the options.
        volumes: Vec<VirtualVolume>,
    },
}

/// Layers, the top one first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layers {
    /// The layers. As many as the mounts name, in their order.
    pub layers: Vec<LayerSource>,
    /// Where the container writes.
    pub upper: Upper,
    /// Options of the overlay besides its directories, such as `index=off`.
    pub options: Vec<String>,
}

/// Where a layer is on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerSource {
    /// It is mounted at this directory; the image is what that mount was made from.
    MountedAt(HostPath),
    /// It is an image that is not mounted.
    Image {
        /// The image.
        image: HostPath,
        /// The blobs that hold the data when the image has metadata only, as its `device=` options name
        /// them: in the order of the image's device table.
        devices: Vec<HostPath>,
        /// Where the root hash of the image's dm-verity tree is written.
        verity: Option<HostPath>,
    },
}

/// Where a container writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Upper {
    /// In the guest's memory. A directory that the host has for it is not used: it may be on a file system
    /// that the host has mounted, which a guest must never mount as well.
    Memory {
        /// The host's directory, if the mounts name one.
        unused: Option<HostPath>,
    },
    /// In an image that only this container's guest mounts.
    Image(WritableImage),
}

/// An image that a container writes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WritableImage {
    /// The image.
    pub image: HostPath,
    /// Its file system.
    pub fs_type: String,
    /// Set when the image is to be made first.
    pub make: Option<MakeFilesystem>,
    /// The upper directory within it.
    pub upper: String,
    /// The work directory within it.
    pub work: String,
    /// Directories to make within it.
    pub directories: Vec<MakeDirectory>,
}

/// A file system that is not mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockRootfs {
    /// The block device or image file.
    pub source: HostPath,
    /// Its file system.
    pub fs_type: String,
    /// Mount options.
    pub options: Vec<String>,
    /// Whether it is only read.
    pub read_only: bool,
    /// Set when it is to be made first.
    pub make: Option<MakeFilesystem>,
    /// The directory within it that is the root; empty for all of it.
    pub directory: String,
    /// Directories to make within it.
    pub directories: Vec<MakeDirectory>,
}

/// Why mounts describe no root file system.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MountsError {
    /// There are no mounts.
    #[error("the root file system has no mounts")]
    NoMounts,
    /// A mount's type is none that a root file system can have here.
    #[error(
        "mount {index} of the root file system has the type {kind:?}; expected is an overlay, erofs, bind, a block file system or nydus-overlayfs, with the prefixes format/, mkdir/ and mkfs/"
    )]
    Kind {
        /// Which, from 0.
        index: usize,
        /// Its type.
        kind: String,
    },
    /// A mount would make no sense in its place.
    #[error("mount {index} of the root file system is of type {kind:?}, which does not go {place}")]
    Place {
        /// Which, from 0.
        index: usize,
        /// Its type.
        kind: String,
        /// Where it stands.
        place: &'static str,
    },
    /// A template cannot be resolved.
    #[error("cannot resolve a template in mount {index} of the root file system")]
    Template {
        /// Which, from 0.
        index: usize,
        /// Why.
        source: TemplateError,
    },
    /// An option cannot be used.
    #[error("cannot use an option of mount {index} of the root file system")]
    Option {
        /// Which, from 0.
        index: usize,
        /// Why.
        source: InvalidOption,
    },
    /// A path cannot be used.
    #[error("cannot use a path in mount {index} of the root file system")]
    Path {
        /// Which, from 0.
        index: usize,
        /// Why.
        source: InvalidPath,
    },
    /// The options of the overlay name no layers.
    #[error("cannot read the layers from the overlay's options")]
    Overlay(#[from] vc_mountinfo::OverlayError),
    /// A layer that only holds data for the others.
    #[error("{0:?} is a data-only layer, which is not supported yet")]
    DataOnly(std::path::PathBuf),
    /// A layer would be lost or doubled.
    #[error("mount {index} of the root file system is used {uses} times by the last one; once is expected")]
    Uses {
        /// Which, from 0.
        index: usize,
        /// How often.
        uses: usize,
    },
    /// The options of nydus-overlayfs.
    #[error("cannot read what nydus-overlayfs is to serve")]
    Nydus(#[from] InvalidNydus),
    /// A volume in Kata's description.
    #[error("cannot read a virtual volume")]
    Volume(#[from] InvalidVirtualVolume),
}

impl Rootfs {
    /// Reads what a snapshotter or containerd's mount manager hands over: one mount, or a list whose last
    /// one is the root and refers to those before by templates such as `{{ overlay 0 2 }}`.
    ///
    /// # Errors
    /// [`MountsError`] for anything that is not understood in full: no mount, template or option of
    /// containerd's is ever skipped. A virtual volume stands for all of the mounts, as in Kata.
    pub fn of_mounts(mounts: &[Mount]) -> Result<Self, MountsError> {
        list::rootfs(mounts)
    }

    /// Why it is served as it is, in one sentence.
    pub fn reason(&self) -> String {
        match self {
            Self::Layers(layers) => format!(
                "{}, kept in the order of the mounts; {}",
                count(layers.layers.len(), "EROFS layer"),
                layers.upper.reason()
            ),
            Self::Block(block) if block.make.is_some() => {
                format!("{} is to be made as {}; only this guest mounts it", block.source, block.fs_type)
            }
            Self::Block(block) => format!("{} is handed over unmounted as {}", block.source, block.fs_type),
            Self::Directory { source, .. } => {
                format!("{source} is a directory, and no device is ever guessed from where a directory is")
            }
            Self::Nydus(_) => "nydus-overlayfs asks for a RAFS image, which nydusd serves".to_owned(),
            Self::Volumes { volumes } => {
                format!("{} in the mount's options", count(volumes.len(), "virtual volume"))
            }
        }
    }
}

impl Upper {
    fn reason(&self) -> String {
        match self {
            Self::Memory { unused: Some(unused) } => {
                format!(
                    "writes stay in the guest's memory: {unused} belongs to the host, which may have it mounted"
                )
            }
            Self::Memory { unused: None } => {
                "writes stay in the guest's memory: no mount has an upper directory".to_owned()
            }
            Self::Image(image) => format!("writes go to {}, handed over unmounted", image.image),
        }
    }
}

fn count(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
