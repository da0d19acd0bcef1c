//! How many disks carry the layers: the policy for many layers.

use std::sync::Arc;

use vc_device::{Access, BlockSpec, DeviceSpec, PartitionImage, PartitionedSpec, Serial};
use vc_types::DeviceId;

use crate::Layer;

/// The most partitions of one disk, as [`PartitionedSpec`] has it.
const MOST_PARTITIONS: usize = 128;

/// With more layers than this, they are partitions.
const MOST_DISKS: usize = 4;

/// How layers are put on disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Each layer is a disk of its own.
    DiskPerLayer,
    /// One disk carries up to 128 layers, each as a partition.
    Partitions,
}

impl Packing {
    /// The policy, by what it costs a start under emulation (`docs/DISKS.md` has the figures): a disk is
    /// probed by the guest, 6 ms as a logical unit and about 25 ms in a port of its own; a partition
    /// costs less than 1 ms. A few layers are disks all the same, which every agent knows.
    pub fn for_layers(count: usize) -> Self {
        if count > MOST_DISKS { Self::Partitions } else { Self::DiskPerLayer }
    }

    /// How many disks so many layers are.
    pub fn disks(self, layers: usize) -> usize {
        layers.div_ceil(self.layers_of_a_disk())
    }

    /// Puts layers on disks, in order.
    pub(crate) fn pack(self, layers: &[Layer]) -> Vec<PlannedDisk> {
        let disk = |layers: &[Layer]| PlannedDisk { layers: layers.into(), packing: self };
        layers.chunks(self.layers_of_a_disk()).map(disk).collect()
    }

    pub(crate) fn layers_of_a_disk(self) -> usize {
        match self {
            Self::DiskPerLayer => 1,
            Self::Partitions => MOST_PARTITIONS,
        }
    }
}

/// A disk of the plan and the layers on it.
#[derive(Clone, Debug)]
pub struct PlannedDisk {
    layers: Vec<Layer>,
    packing: Packing,
}

impl PlannedDisk {
    /// The layers, in order.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The number of the partition that carries the layer at `index`; `None` when it is the whole disk.
    pub(crate) fn partition(&self, index: usize) -> Option<usize> {
        (self.packing == Packing::Partitions).then_some(index + 1)
    }

    /// The disk, by the name that it gets.
    ///
    /// # Panics
    /// Never: a plan has layers on each of its disks, and an image that can be a layer is not empty.
    pub fn spec(&self, id: DeviceId, serial: Option<Serial>) -> DeviceSpec {
        match (self.packing, &*self.layers) {
            (Packing::DiskPerLayer, [layer, ..]) => {
                let disk = BlockSpec::new(id, layer.image().clone(), layer.name().clone(), Access::ReadOnly);
                BlockSpec { serial, ..disk }.into()
            }
            (_, layers) => {
                let image = |layer: &Layer| PartitionImage {
                    file: Arc::clone(layer.image()),
                    name: layer.name().clone(),
                    size: layer.size(),
                };
                let images = layers.iter().map(image).collect();
                PartitionedSpec::new(id, images, serial).expect("1 to 128 images with content").into()
            }
        }
    }
}
