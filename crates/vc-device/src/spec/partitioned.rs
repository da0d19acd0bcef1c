//! Many read-only images as one disk: each is a partition.

use std::fs::File;
use std::sync::Arc;

use vc_types::{DeviceId, HostPath};

use super::Serial;

/// The most partitions of a disk: what a GUID partition table of the usual size holds (UEFI 2.10,
/// section 5.3).
const MOST: usize = 128;

/// One image of a [`PartitionedSpec`].
#[derive(Clone, Debug)]
pub struct PartitionImage {
    /// The raw image, open for reading.
    pub file: Arc<File>,
    /// What the image was called when it was opened, for messages only.
    pub name: HostPath,
    /// Its size in bytes. The partition ends with the sector of 512 bytes that has the last byte.
    pub size: u64,
}

/// Why images cannot be one disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPartitions {
    /// No image, or more than a partition table holds.
    #[error("{0} images cannot be one disk: it has 1 to {MOST} partitions")]
    Count(usize),
    /// An image without bytes.
    #[error("{0} is empty, and a partition is not")]
    Empty(HostPath),
}

/// A read-only disk that is made of images: image 0 is partition 1, and so on.
///
/// A guest sees one device however many images there are, so that the number of layers costs next to
/// nothing: no port, no interrupt and no probe for each.
#[derive(Clone, Debug)]
pub struct PartitionedSpec {
    id: DeviceId,
    images: Vec<PartitionImage>,
    serial: Option<Serial>,
}

impl PartitionedSpec {
    /// A disk of `images`.
    ///
    /// # Errors
    /// [`InvalidPartitions`] when there are none, more than 128, or an empty one among them.
    pub fn new(
        id: DeviceId,
        images: Vec<PartitionImage>,
        serial: Option<Serial>,
    ) -> Result<Self, InvalidPartitions> {
        if !(1..=MOST).contains(&images.len()) {
            return Err(InvalidPartitions::Count(images.len()));
        }
        match images.iter().find(|image| image.size == 0) {
            Some(empty) => Err(InvalidPartitions::Empty(empty.name.clone())),
            None => Ok(Self { id, images, serial }),
        }
    }

    /// Names the device within its machine.
    pub fn id(&self) -> &DeviceId {
        &self.id
    }

    /// The images, in the order of the partitions.
    pub fn images(&self) -> &[PartitionImage] {
        &self.images
    }

    /// What the guest finds in the disk's `serial` attribute.
    pub fn serial(&self) -> Option<&Serial> {
        self.serial.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(sizes: &[u64]) -> Result<PartitionedSpec, InvalidPartitions> {
        let file = Arc::new(File::open("/dev/null").unwrap());
        let image =
            |&size| PartitionImage { file: file.clone(), name: HostPath::new("/image").unwrap(), size };
        PartitionedSpec::new("layers".parse().unwrap(), sizes.iter().map(image).collect(), None)
    }

    #[test]
    fn a_disk_has_1_to_128_partitions_and_none_is_empty() {
        assert_eq!(make(&[4096; 128]).unwrap().images().len(), 128);
        assert_eq!(make(&[]).err(), Some(InvalidPartitions::Count(0)));
        assert_eq!(make(&[4096; 129]).err(), Some(InvalidPartitions::Count(129)));
        let empty = InvalidPartitions::Empty(HostPath::new("/image").unwrap());
        assert_eq!(make(&[4096, 0]).err(), Some(empty));
    }
}
