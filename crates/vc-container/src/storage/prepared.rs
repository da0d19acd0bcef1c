//! A plan together with what was found out for it.

use std::path::Path;

use oci_spec::runtime::Spec;
use vc_storage::{
    DirectVolumes, FactsError, LayerSource, Layers, MountPolicy, OpenImages, PlanError, Rootfs, SharedFs,
    StoragePlan, StorageRequest, Surroundings, Upper, gather, plan,
};
use vc_types::{ContainerId, HostPath, InvalidPath};

use super::request::{InvalidPageSize, storage_request};

/// The storage of a container that is wanted: how it reaches the guest, and the images that are open already.
#[derive(Clone, Debug)]
pub struct ContainerStorage {
    /// How it reaches the guest.
    pub plan: StoragePlan,
    /// What was opened and checked for the plan.
    pub images: OpenImages,
    /// Where CSI drivers left the plan's volumes, if that was looked at.
    pub direct_volumes: Option<DirectVolumes>,
}

/// Why there is no storage for a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Something is not known about the host.
    #[error("cannot find out what the storage rests on")]
    Facts(#[from] FactsError),
    /// It cannot be had.
    #[error("cannot have the storage")]
    Plan(#[from] PlanError),
    /// The specification cannot be read.
    #[error("cannot read the specification")]
    Specification(#[from] InvalidPageSize),
    /// A layer's path cannot be used.
    #[error("cannot use a layer's path")]
    Path(#[from] InvalidPath),
}

impl ContainerStorage {
    /// Looks at the host and plans; changes nothing.
    ///
    /// # Errors
    /// [`StorageError`] when something cannot be found out, or cannot be had.
    pub fn prepare(
        request: &StorageRequest,
        policy: MountPolicy,
        around: &Surroundings<'_>,
    ) -> Result<Self, StorageError> {
        let (facts, images) = gather(request, around)?;
        let direct_volumes = around.direct_volumes.cloned();
        Ok(Self { plan: plan(request, &facts, policy)?, images, direct_volumes })
    }

    /// A root of EROFS images, the top one first, for a container of this specification, on a machine that shares no
    /// file system.
    ///
    /// # Errors
    /// [`StorageError`] when one is no usable image, or a mount of the specification cannot be had.
    pub fn of_layers<P: AsRef<Path>>(
        container: ContainerId,
        layers: impl IntoIterator<Item = P>,
        spec: &Spec,
    ) -> Result<Self, StorageError> {
        let image = |path: P| -> Result<_, InvalidPath> {
            let path = std::path::absolute(&path).unwrap_or_else(|_| path.as_ref().into());
            Ok(LayerSource::Image { image: HostPath::new(path)?, devices: Vec::new(), verity: None })
        };
        let layers = layers.into_iter().map(image).collect::<Result<_, _>>()?;
        let rootfs =
            Rootfs::Layers(Layers { layers, upper: Upper::Memory { unused: None }, options: Vec::new() });
        let request = storage_request(container, rootfs, spec)?;
        Self::prepare(&request, MountPolicy::new(SharedFs::None), &Surroundings::default())
    }
}
