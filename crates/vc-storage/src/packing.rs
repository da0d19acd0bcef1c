//! How many disks carry the layers: the policy for many layers.

/// The most partitions of one disk, as `vc_device::PartitionedSpec` has it.
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
        layers.div_ceil(self.images_of_a_disk())
    }

    pub(crate) fn images_of_a_disk(self) -> usize {
        match self {
            Self::DiskPerLayer => 1,
            Self::Partitions => MOST_PARTITIONS,
        }
    }
}
