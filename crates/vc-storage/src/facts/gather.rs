//! The one place that looks at the host for the planner. It changes nothing.

use std::io;
use std::path::PathBuf;

use vc_device::{DeviceIdentity, PathKind};
use vc_mountinfo::{DeviceUseError, Fields, Lookup, LookupError, Symlinks};
use vc_types::{HostPath, InvalidDeviceNumber, InvalidPath};

use super::{HostFacts, OpenImages};
use crate::layer::LayerSourceError;
use crate::plan::StorageRequest;
use crate::rootfs::InvalidVerityRoot;
use crate::volume::{DirectVolumes, InvalidDirectVolume};

/// Why something is not known about the host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FactsError {
    /// A layer has no usable image.
    #[error(transparent)]
    Layer(#[from] LayerSourceError),
    /// What has data of a layer is no file.
    #[error("{0} has the data of a layer, but is no regular file")]
    Blob(HostPath),
    /// A path cannot be looked at.
    #[error("cannot look at {path:?}")]
    Look {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A path leads to what cannot be named.
    #[error("{path:?} leads to a path that cannot be used")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        source: InvalidPath,
    },
    /// A device has a number that no device has.
    #[error("{path:?} has a device number that no device has")]
    Number {
        /// The path.
        path: PathBuf,
        /// Why.
        source: InvalidDeviceNumber,
    },
    /// The mount that a path is on is not known.
    #[error("cannot tell what {path:?} is mounted from")]
    Mount {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<LookupError>,
    },
    /// It is not known whether the host uses a disk.
    #[error(transparent)]
    Use(#[from] DeviceUseError),
    /// A volume of a CSI driver is not usable.
    #[error("the volume that a CSI driver assigned to {path:?} cannot be used")]
    Direct {
        /// Where it would be.
        path: PathBuf,
        /// Why.
        source: InvalidDirectVolume,
    },
    /// The root hash of a layer is not usable.
    #[error("cannot read the root hash in {path:?}")]
    Verity {
        /// The file with it.
        path: PathBuf,
        /// Why.
        source: InvalidVerityRoot,
    },
}

/// What is around a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// Where CSI drivers leave volumes to the runtime; `None` where there are none.
    pub direct_volumes: Option<&'a DirectVolumes>,
    /// Devices that the container's own machine has already. They are in use, but not by others.
    pub held: &'a [DeviceIdentity],
}

/// Looks at all that a container's storage rests on, without changing anything.
///
/// Layers are opened and checked, and are handed on open, so that what was checked is what is plugged.
///
/// # Errors
/// [`FactsError`] when something can neither be found nor be said to be absent.
pub fn gather(
    request: &StorageRequest,
    around: &Surroundings<'_>,
) -> Result<(HostFacts, OpenImages), FactsError> {
    let mut host = Host::new(*around);
    let root = host.root(&request.rootfs)?;
    let mounts = request.mounts.iter().map(|mount| host.mount(mount)).collect::<Result<_, _>>()?;
    Ok((HostFacts { root, mounts }, host.images))
}

/// The host, with what is kept from one look to the next.
pub(super) struct Host<'a> {
    pub(super) lookup: Lookup,
    pub(super) around: Surroundings<'a>,
    pub(super) images: OpenImages,
}

impl<'a> Host<'a> {
    pub(super) fn new(around: Surroundings<'a>) -> Self {
        let fields = Fields { mount_point: true, ..Fields::default() };
        let lookup = Lookup::new().symlinks(Symlinks::Follow).fields(fields);
        Self { lookup, around, images: OpenImages::default() }
    }
}

/// What a path is, links followed; `None` when there is nothing.
pub(super) fn kind_of(path: &HostPath) -> Result<Option<(PathKind, std::fs::Metadata)>, FactsError> {
    let stat = match std::fs::metadata(path) {
        Ok(stat) => stat,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(source) => return Err(FactsError::Look { path: path.as_path().into(), source }),
    };
    let kind = PathKind::try_from(&stat)
        .map_err(|source| FactsError::Number { path: path.as_path().into(), source })?;
    Ok(Some((kind, stat)))
}

/// Whether an error says that there is nothing.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
