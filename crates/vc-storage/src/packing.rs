//! How many disks carry the layers: the policy for many layers.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Arc;

use vc_device::{
    Access, BlockSpec, DeviceRequest, DeviceSource, DeviceSpec, FileId, NamedFile, PartitionImage,
    PartitionedSpec, Serial,
};
use vc_types::{DeviceId, DeviceNumber};

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

    /// What the disk is on the host, for a registry of devices: containers with the same layers share it.
    /// The open images are asked, not their names.
    ///
    /// # Errors
    /// What fstat(2) says.
    pub fn request(&self) -> io::Result<DeviceRequest> {
        let source = match (self.packing, &*self.layers) {
            (Packing::DiskPerLayer, [layer, ..]) => match identify(layer)? {
                Identity::Block(number) => DeviceSource::Block { number, path: layer.name().clone() },
                Identity::File(file) => DeviceSource::File { file, path: layer.name().clone() },
            },
            (_, layers) => DeviceSource::Partitioned {
                images: layers.iter().map(named_file).collect::<io::Result<_>>()?,
            },
        };
        Ok(DeviceRequest { source, access: Access::ReadOnly, node: None })
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

enum Identity {
    Block(DeviceNumber),
    File(FileId),
}

fn identify(layer: &Layer) -> io::Result<Identity> {
    let facts = layer.image().metadata()?;
    if facts.file_type().is_block_device() {
        return DeviceNumber::from_stat(facts.rdev()).map(Identity::Block).map_err(io::Error::other);
    }
    file_id(&facts).map(Identity::File)
}

fn named_file(layer: &Layer) -> io::Result<NamedFile> {
    Ok(NamedFile { file: file_id(&layer.image().metadata()?)?, path: layer.name().clone() })
}

fn file_id(facts: &std::fs::Metadata) -> io::Result<FileId> {
    let device = DeviceNumber::from_stat(facts.dev()).map_err(io::Error::other)?;
    Ok(FileId { device, inode: facts.ino() })
}
