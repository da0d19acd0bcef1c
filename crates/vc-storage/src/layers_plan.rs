//! The plan: layers on read-only disks, an overlay of them, in the order given.

use vc_agent::{Storage, StorageDriver};
use vc_device::GuestLocation;
use vc_types::{ContainerId, DeviceId, GuestPath};

use crate::packing::{Packing, PlannedDisk};
use crate::{Layer, PlanError};

/// Below it the agent keeps what belongs to one container; Kata's agent has the same.
const CONTAINERS: &str = "/run/kata-containers";

/// Below it disks are mounted; Kata's agent has the same.
const DISKS: &str = "/run/kata-containers/virtual-volumes";

/// The driver option that makes the agent create a directory before it mounts.
const CREATE_DIRECTORY: &str = "io.katacontainers.volume.overlayfs.create_directory";

/// What is to be done for one container's root file system.
#[derive(Clone, Debug)]
pub struct LayersPlan {
    /// The disks that carry the layers, the top one first; each is to be plugged.
    pub disks: Vec<PlannedDisk>,
    /// Where the root file system will be in the guest.
    pub rootfs: GuestPath,
    /// The container's own directory in the guest.
    base: GuestPath,
    /// How many layers were handed in.
    count: usize,
}

/// A disk of the plan, plugged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPlug {
    /// Its name.
    pub id: DeviceId,
    /// Where the guest finds it.
    pub location: GuestLocation,
}

/// Plans a writable root file system from read-only layers, the top one first.
///
/// The layers are on disks as `packing` has it; in the guest they are the lower directories of an
/// overlay whose upper directory is in the guest's memory.
///
/// # Errors
/// [`PlanError::NoLayers`] when there is none.
pub fn plan_layers(
    container: &ContainerId,
    layers: Vec<Layer>,
    packing: Packing,
) -> Result<LayersPlan, PlanError> {
    if layers.is_empty() {
        return Err(PlanError::NoLayers);
    }
    let base = below(CONTAINERS, container.as_str());
    let rootfs = base.join("rootfs").expect("a plain name");
    Ok(LayersPlan { disks: packing.pack(&layers), rootfs, base, count: layers.len() })
}

impl LayersPlan {
    /// The layers, the top one first.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.disks.iter().flat_map(PlannedDisk::layers)
    }

    /// What the agent is to mount, in order, once the disks are `plugged` in the order of the plan.
    ///
    /// # Errors
    /// [`PlanError::DiskCount`] unless there is exactly one plugged disk for each of the plan, and
    /// [`PlanError::LayerCount`] unless each layer is mounted once: layers out are layers in.
    /// [`PlanError::Place`] for a disk that is neither a PCI function nor a logical unit.
    pub fn storages(&self, plugged: &[DiskPlug]) -> Result<Vec<Storage>, PlanError> {
        if plugged.len() != self.disks.len() {
            return Err(PlanError::DiskCount { planned: self.disks.len(), plugged: plugged.len() });
        }
        let mut storages = Vec::new();
        for (disk, plug) in self.disks.iter().zip(plugged) {
            for index in 0..disk.layers().len() {
                storages.push(layer_storage(plug, disk.partition(index))?);
            }
        }
        if storages.len() != self.count {
            return Err(PlanError::LayerCount { planned: self.count, mounted: storages.len() });
        }
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

/// One layer: a disk, or a partition of one in the words of Kata's agent.
fn layer_storage(disk: &DiskPlug, partition: Option<usize>) -> Result<Storage, PlanError> {
    let driver = match &disk.location {
        GuestLocation::Pci(_) => StorageDriver::Block,
        GuestLocation::Scsi { .. } => StorageDriver::Scsi,
        GuestLocation::Memory(_) | GuestLocation::Ap => {
            return Err(PlanError::Place { disk: disk.id.clone(), location: disk.location.clone() });
        }
    };
    let mut options = vec!["ro".to_owned()];
    let mut name = disk.id.to_string();
    if let Some(number) = partition {
        options.push("X-kata.gpt-partitioned=true".into());
        options.push(format!("X-kata.partition-number={number}"));
        name = format!("{name}-{number}");
    }
    let source = disk.location.to_string();
    Ok(Storage { options, ..Storage::new(driver, source, "erofs", below(DISKS, &name)) })
}

fn below(parent: &str, name: &str) -> GuestPath {
    GuestPath::new(parent).and_then(|parent| parent.join(name)).expect("an absolute path and a plain name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vc_types::{PciPath, PciSlot};

    fn unit(unit: u8) -> GuestLocation {
        GuestLocation::Scsi { controller: path(3), target: 0, unit }
    }

    fn path(device: u8) -> PciPath {
        PciPath::root(PciSlot::new(device, 0).unwrap())
    }

    fn layers(count: usize) -> Vec<Layer> {
        (0..count).map(|n| Layer::for_test(&format!("/layers/{n}"))).collect()
    }

    fn plan(count: usize, packing: Packing) -> LayersPlan {
        plan_layers(&"web".parse().unwrap(), layers(count), packing).unwrap()
    }

    fn plugged(count: usize) -> Vec<DiskPlug> {
        let place = |n: usize| match u8::try_from(n) {
            Ok(n) if n < 16 => GuestLocation::Pci(path(8 + n).child(PciSlot::new(0, 0).unwrap())),
            _ => unit(u8::try_from(n % 256).unwrap()),
        };
        (0..count).map(|n| DiskPlug { id: format!("disk{n}").parse().unwrap(), location: place(n) }).collect()
    }

    #[test]
    fn two_layers_on_a_disk_each_become_an_overlay() {
        let plan = plan(2, Packing::DiskPerLayer);
        assert_eq!(plan.rootfs.as_str(), "/run/kata-containers/web/rootfs");
        let storages = plan.storages(&plugged(2)).unwrap();
        let sources: Vec<_> = storages.iter().map(|storage| storage.source.as_str()).collect();
        assert_eq!(sources, ["08/00", "09/00", "overlay"]);
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
    fn two_layers_on_one_disk_are_its_partitions() {
        let plan = plan(2, Packing::Partitions);
        assert_eq!(plan.disks.len(), 1);
        let storages = plan.storages(&plugged(1)).unwrap();
        let told: Vec<_> =
            storages.iter().map(|s| (s.source.as_str(), s.options.last().unwrap().as_str())).collect();
        assert_eq!(
            told,
            [
                ("08/00", "X-kata.partition-number=1"),
                ("08/00", "X-kata.partition-number=2"),
                ("overlay", "workdir=/run/kata-containers/web/work"),
            ]
        );
        assert!(storages[2].options[0].ends_with("/disk0-1:/run/kata-containers/virtual-volumes/disk0-2"));
    }

    #[test]
    fn many_layers_need_one_disk() {
        for (layers, disks) in [(1, 1), (4, 4), (5, 1), (128, 1), (129, 2)] {
            assert_eq!(Packing::for_layers(layers).disks(layers), disks, "{layers}");
        }
    }

    #[test]
    fn one_layer_is_a_disk_and_a_unit_is_named_by_its_address() {
        let plan = plan(1, Packing::for_layers(1));
        let plug = |location| [DiskPlug { id: "disk0".parse().unwrap(), location }];
        let storages = plan.storages(&plug(unit(7))).unwrap();
        assert_eq!((storages[0].driver.name(), storages[0].source.as_str()), ("scsi", "0:7"));
        assert_eq!(storages[0].options, ["ro"]);
        let memory = plan.storages(&plug(GuestLocation::Memory(0)));
        assert!(matches!(memory, Err(PlanError::Place { .. })), "{memory:?}");
    }

    #[test]
    fn a_root_needs_layers_and_every_disk_its_plug() {
        let id: ContainerId = "web".parse().unwrap();
        let none = plan_layers(&id, Vec::new(), Packing::Partitions);
        assert_eq!(none.err(), Some(PlanError::NoLayers));
        let plan = plan(3, Packing::DiskPerLayer);
        assert_eq!(plan.storages(&plugged(2)), Err(PlanError::DiskCount { planned: 3, plugged: 2 }));
    }

    proptest! {
        // Each layer is a file.
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn d1_layers_out_are_layers_in_and_in_order(count in 1usize..300, partitions: bool) {
            let packing = if partitions { Packing::Partitions } else { Packing::DiskPerLayer };
            let plan = plan(count, packing);
            let names: Vec<_> = plan.layers().map(|layer| layer.name().to_string()).collect();
            let expected: Vec<_> = (0..count).map(|n| format!("/layers/{n}")).collect();
            prop_assert_eq!(names, expected);
            prop_assert_eq!(plan.disks.len(), packing.disks(count));
            let disks = plugged(plan.disks.len());
            let storages = plan.storages(&disks).unwrap();
            let (overlay, lower) = storages.split_last().unwrap();
            prop_assert_eq!(lower.len(), count);
            let mounted: Vec<_> = lower.iter().map(|storage| storage.mount_point.as_str()).collect();
            let expected = format!("lowerdir={}", mounted.join(":"));
            prop_assert_eq!(&overlay.options[0], &expected);
            for (index, storage) in lower.iter().enumerate() {
                let (disk, partition) = if partitions { (index / 128, index % 128 + 1) } else { (index, 0) };
                prop_assert_eq!(&storage.source, &disks[disk].location.to_string());
                let number = format!("X-kata.partition-number={partition}");
                prop_assert_eq!(storage.options.contains(&number), partitions);
            }
        }
    }
}
