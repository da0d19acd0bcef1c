//! The root file system that the command line names, and the storage of the container that goes with it.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use vc_container::{ContainerStorage, Sharing, StorageError, storage_request};
use vc_storage::{
    DirectVolumes, LayerSource, Layers, MountPolicy, Rootfs, SharedFs, Surroundings, Upper, rootfs_at,
};
use vc_types::{ContainerId, HostPath};

use crate::cli;
use crate::failure::Failure;

/// Looks at the host and plans; changes nothing.
pub(crate) fn storage(
    id: ContainerId,
    rootfs: Rootfs,
    spec: &Spec,
    policy: MountPolicy,
    around: &Surroundings<'_>,
) -> Result<ContainerStorage, Failure> {
    let request =
        storage_request(id, rootfs, spec).map_err(|error| Failure::step("read the bundle", error))?;
    ContainerStorage::prepare(&request, policy, around).map_err(|error| match error {
        StorageError::Facts(error) => Failure::step("look at the host", error),
        StorageError::Plan(error) => Failure::step("plan this container", error),
        other => Failure::step("plan this container", other),
    })
}

/// What CSI drivers have left to the runtime. They work for root's, and their disks are root's to open; nobody else
/// may even look.
pub(crate) fn direct_volumes() -> Option<DirectVolumes> {
    rustix::process::geteuid().is_root().then(DirectVolumes::default)
}

/// How directories are shared with a machine. Binding and serving them needs root; without it they are copied, and so
/// they are where there is no virtiofsd. Who asks for nydusd needs it, and is told when it is missing.
pub(crate) fn shared_fs(sharing: &Sharing) -> SharedFs {
    let is_served = || match sharing.shared_fs {
        SharedFs::VirtioFs => sharing.program.is_some() || vc_share::find_virtiofsd().is_ok(),
        SharedFs::Nydus | SharedFs::None => true,
    };
    if rustix::process::geteuid().is_root() && is_served() { sharing.shared_fs } else { SharedFs::None }
}

/// How mounts reach a machine, by what the container's annotations say.
pub(crate) fn policy(shared_fs: SharedFs, spec: &Spec) -> Result<MountPolicy, Failure> {
    let annotations = spec.annotations().iter().flatten();
    let policy = MountPolicy::new(shared_fs);
    let policy = policy.with_annotations(annotations.map(|(name, value)| (name.as_str(), value.as_str())));
    policy.map_err(|error| Failure::step("read the annotations", error))
}

/// The root that the command line names, or else the bundle's.
pub(crate) fn of_options(options: &cli::Rootfs, spec: &Spec) -> Result<Rootfs, Failure> {
    if !options.layers.is_empty() {
        let image = |path: &PathBuf| {
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            let image = HostPath::new(absolute)?;
            Ok(LayerSource::Image { image, devices: Vec::new(), verity: None })
        };
        let layers = options.layers.iter().map(image).collect::<Result<_, vc_types::InvalidPath>>();
        let layers = layers.map_err(|error| Failure::step("use the layers", error))?;
        return Ok(Rootfs::Layers(Layers {
            layers,
            upper: Upper::Memory { unused: None },
            options: Vec::new(),
        }));
    }
    if !options.mounts.is_empty() {
        let mounts: Vec<_> = options.mounts.iter().map(|mount| mount.0.clone()).collect();
        return Rootfs::of_mounts(&mounts).map_err(|error| Failure::step("read the root file system", error));
    }
    let bundle = options.bundle.as_deref().unwrap_or(Path::new("."));
    let root = spec.root().as_ref().map_or_else(|| PathBuf::from("rootfs"), |root| root.path().clone());
    of_bundle(&bundle.join(root))
}

/// The root at this path of a bundle.
pub(crate) fn of_bundle(root: &Path) -> Result<Rootfs, Failure> {
    let step = || format!("use the bundle's root file system {}", root.display());
    rootfs_at(root).map_err(|error| Failure::step(step(), error))
}
