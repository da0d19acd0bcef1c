//! The plan: one read-only disk per layer, an overlay of them, in the order given.

use vc_agent::{Storage, StorageDriver};
use vc_types::{ContainerId, DeviceId, GuestPath, PciPath};

use crate::Layer;

/// Below it the agent keeps what belongs to one container; Kata's agent has the same.
const CONTAINERS: &str = "/run/kata-containers";

/// Below it disks are mounted; Kata's agent has the same.
const DISKS: &str = "/run/kata-containers/virtual-volumes";

/// The driver option that makes the agent create a directory before it mounts.
const CREATE_DIRECTORY: &str = "io.katacontainers.volume.overlayfs.create_directory";

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A root file system has at least one layer.
    #[error("the root file system has no layers")]
    NoLayers,
    /// The disks were not plugged as planned.
    #[error("{planned} layers were planned, {plugged} were plugged")]
    DiskCount {
        /// Layers in the plan.
        planned: usize,
        /// Disks there are.
        plugged: usize,
    },
}

/// What is to be done for one container's root file system.
#[derive(Clone, Debug)]
pub struct StoragePlan {
    /// The layers, the top one first; each is to be plugged as a read-only disk.
    pub layers: Vec<Layer>,
    /// Where the root file system will be in the guest.
    pub rootfs: GuestPath,
    /// The container's own directory in the guest.
    base: GuestPath,
}

/// A disk of the plan, plugged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPlug {
    /// Its name.
    pub id: DeviceId,
    /// Where the guest finds it.
    pub path: PciPath,
}

/// Plans a writable root file system from read-only layers, the top one first.
///
/// Each layer becomes a disk of its own; in the guest they are the lower directories of an overlay
/// whose upper directory is in the guest's memory.
///
/// # Errors
/// [`PlanError::NoLayers`] when there is none.
pub fn plan_layers(container: &ContainerId, layers: Vec<Layer>) -> Result<StoragePlan, PlanError> {
    if layers.is_empty() {
        return Err(PlanError::NoLayers);
    }
    let base = below(CONTAINERS, container.as_str());
    let rootfs = base.join("rootfs").expect("a plain name");
    Ok(StoragePlan { layers, rootfs, base })
}

impl StoragePlan {
    /// What the agent is to mount, in order, once the layers are `plugged` in the order of the plan.
    ///
    /// # Errors
    /// [`PlanError::DiskCount`] unless there is exactly one plugged disk for each layer: layers
    /// out are layers in.
    pub fn storages(&self, plugged: &[DiskPlug]) -> Result<Vec<Storage>, PlanError> {
        if plugged.len() != self.layers.len() {
            return Err(PlanError::DiskCount { planned: self.layers.len(), plugged: plugged.len() });
        }
        let mut storages: Vec<Storage> = plugged.iter().map(layer_storage).collect();
        let lower: Vec<&str> = storages.iter().map(|storage| storage.mount_point.as_str()).collect();
        let overlay = self.overlay(&lower.join(":"));
        storages.push(overlay);
        Ok(storages)
    }

    fn overlay(&self, lower: &str) -> Storage {
        let [upper, work] = ["fs", "work"].map(|name| self.base.join(name).expect("a plain name"));
        Storage {
            driver_options: [&upper, &work].map(|path| format!("{CREATE_DIRECTORY}={path}")).into(),
            options: vec![
                format!("lowerdir={lower}"),
                format!("upperdir={upper}"),
                format!("workdir={work}"),
            ],
            ..Storage::new(StorageDriver::Overlay, "overlay", "overlay", self.rootfs.clone())
        }
    }
}

fn layer_storage(disk: &DiskPlug) -> Storage {
    let mount_point = below(DISKS, disk.id.as_str());
    Storage {
        options: vec!["ro".into()],
        ..Storage::new(StorageDriver::Block, disk.path.to_string(), "erofs", mount_point)
    }
}

fn below(parent: &str, name: &str) -> GuestPath {
    GuestPath::new(parent).and_then(|parent| parent.join(name)).expect("an absolute path and a plain name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vc_types::PciSlot;

    fn layers(count: usize) -> Vec<Layer> {
        (0..count).map(|n| Layer::for_test(&format!("/layers/{n}"))).collect()
    }

    fn plugged(count: usize) -> Vec<DiskPlug> {
        let place = |n: usize| {
            let n = u8::try_from(n).unwrap();
            PciPath::root(PciSlot::new(8 + n / 8, n % 8).unwrap()).child(PciSlot::new(0, 0).unwrap())
        };
        (0..count).map(|n| DiskPlug { id: format!("disk{n}").parse().unwrap(), path: place(n) }).collect()
    }

    #[test]
    fn two_layers_become_two_disks_and_an_overlay() {
        let plan = plan_layers(&"web".parse().unwrap(), layers(2)).unwrap();
        assert_eq!(plan.rootfs.as_str(), "/run/kata-containers/web/rootfs");
        let storages = plan.storages(&plugged(2)).unwrap();
        let sources: Vec<_> = storages.iter().map(|storage| storage.source.as_str()).collect();
        assert_eq!(sources, ["08/00", "08.1/00", "overlay"]);
        assert_eq!(
            storages[2].options,
            [
                "lowerdir=/run/kata-containers/virtual-volumes/disk0:/run/kata-containers/virtual-volumes/disk1",
                "upperdir=/run/kata-containers/web/fs",
                "workdir=/run/kata-containers/web/work",
            ]
        );
        assert_eq!(
            storages[2].driver_options,
            [
                "io.katacontainers.volume.overlayfs.create_directory=/run/kata-containers/web/fs",
                "io.katacontainers.volume.overlayfs.create_directory=/run/kata-containers/web/work",
            ]
        );
    }

    #[test]
    fn a_root_needs_layers_and_every_layer_its_disk() {
        let id: ContainerId = "web".parse().unwrap();
        assert_eq!(plan_layers(&id, Vec::new()).err(), Some(PlanError::NoLayers));
        let plan = plan_layers(&id, layers(3)).unwrap();
        assert_eq!(plan.storages(&plugged(2)), Err(PlanError::DiskCount { planned: 3, plugged: 2 }));
    }

    proptest! {
        #[test]
        fn d1_layers_out_are_layers_in_and_in_order(count in 1usize..100) {
            let plan = plan_layers(&"web".parse().unwrap(), layers(count)).unwrap();
            let names: Vec<_> = plan.layers.iter().map(|layer| layer.name().to_string()).collect();
            let expected: Vec<_> = (0..count).map(|n| format!("/layers/{n}")).collect();
            prop_assert_eq!(names, expected);
            let disks = plugged(count);
            let storages = plan.storages(&disks).unwrap();
            let (overlay, lower) = storages.split_last().unwrap();
            let mounted: Vec<_> = lower.iter().map(|storage| storage.mount_point.as_str()).collect();
            let expected = format!("lowerdir={}", mounted.join(":"));
            prop_assert_eq!(&overlay.options[0], &expected);
            for (storage, disk) in lower.iter().zip(&disks) {
                prop_assert_eq!(&storage.source, &disk.path.to_string());
                prop_assert!(storage.mount_point.as_str().ends_with(disk.id.as_str()));
            }
        }
    }
}
