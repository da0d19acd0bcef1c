//! Block devices as layers: one by itself, or several as one overlay.

use super::markers::{Markers, NewDirectory};
use super::request::{Driver, InvalidStorage, StorageSpec};
use super::verity::VerityOptions;
use crate::block::{BlockAddress, BlockSource};
use vc_agent_protocol::agent;

/// A block device with a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The device.
    pub source: BlockSource,
    /// The devices that have its data when it is an EROFS image with metadata only, in the order of its device
    /// table.
    pub blobs: Vec<BlockSource>,
    /// How its bytes are verified.
    pub verity: Option<VerityOptions>,
    /// The file system's name; `bind` for a device that is to be used as it is.
    pub fs_type: String,
    /// The mount options.
    pub options: Vec<String>,
}

impl Layer {
    /// All its devices, its own first.
    pub(super) fn devices(&self) -> impl Iterator<Item = &BlockSource> {
        std::iter::once(&self.source).chain(&self.blobs)
    }
}

/// The layers of one overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// The writable one.
    pub upper: Layer,
    /// Directories to be made in it.
    pub directories: Vec<NewDirectory>,
    /// Those below, the topmost first.
    pub lower: Vec<Layer>,
}

/// The overlay that all the storages with `X-kata.multi-layer` of one request are.
pub(super) fn overlay_of(
    layers: Vec<(&agent::Storage, Markers, Vec<String>)>,
) -> Result<StorageSpec, InvalidStorage> {
    let (mut upper, mut lower) = (None, Vec::new());
    for (wire, markers, options) in layers {
        // Told apart by their file systems where no marker says it.
        let is_upper = markers.is_upper || !markers.is_lower && wire.fstype != "erofs";
        let layer = layer(wire, &markers, options)?;
        if !is_upper {
            lower.push(layer);
        } else if markers.is_lower || upper.is_some() {
            return Err(InvalidStorage::Layers);
        } else {
            let mut spec = StorageSpec::without_driver(wire, Vec::new())?;
            "overlay".clone_into(&mut spec.fs_type);
            upper = Some((spec, layer, markers.directories));
        }
    }
    let Some((mut spec, upper, directories)) = upper.filter(|_| !lower.is_empty()) else {
        return Err(InvalidStorage::Layers);
    };
    spec.driver = Driver::Layers(Box::new(Layers { upper, directories, lower }));
    Ok(spec)
}

/// A block device of one of the drivers for them.
pub(super) fn layer(
    wire: &agent::Storage,
    markers: &Markers,
    options: Vec<String>,
) -> Result<Layer, InvalidStorage> {
    let address = |driver| move |source| InvalidStorage::Address { driver, source };
    let address = match wire.driver.as_str() {
        "blk" => BlockAddress::Pci(wire.source.parse().map_err(InvalidStorage::Pci)?),
        "scsi" => BlockAddress::Scsi(wire.source.parse().map_err(address("scsi"))?),
        "mmioblk" => BlockAddress::Name(wire.source.parse().map_err(address("mmioblk"))?),
        "nvdimm" => BlockAddress::Name(wire.source.parse().map_err(address("nvdimm"))?),
        other => return Err(InvalidStorage::Driver(other.to_owned())),
    };
    if !markers.blobs.is_empty() && (wire.fstype != "erofs" || markers.verity.is_some()) {
        return Err(InvalidStorage::Unsupported(
            "data in other partitions, but for erofs without dm-verity,".to_owned(),
        ));
    }
    let blob = |number: &_| BlockSource { address: address.clone(), partition: Some(*number) };
    Ok(Layer {
        blobs: markers.blobs.iter().map(blob).collect(),
        source: BlockSource { address, partition: markers.partition },
        verity: markers.verity.clone(),
        fs_type: wire.fstype.clone(),
        options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(driver: &str, source: &str) -> agent::Storage {
        agent::Storage {
            driver: driver.into(),
            source: source.into(),
            mount_point: "/run/layers".into(),
            ..Default::default()
        }
    }

    fn layer_of(source: &str, fs_type: &str, markers: &[&str]) -> agent::Storage {
        let options = markers.iter().map(|marker| format!("X-kata.{marker}")).chain(["noatime".to_owned()]);
        let fstype = fs_type.to_owned();
        agent::Storage { fstype, options: options.collect(), ..wire("blk", source) }
    }

    #[test]
    fn layers_become_one_overlay_in_their_order() {
        let partition =
            |number: &'static str| ["multi-layer=true", "overlay-lower", "gpt-partitioned=true", number];
        let specs = StorageSpec::all_from_wire(&[
            wire("ephemeral", "tmpfs"),
            layer_of(
                "01/00",
                "ext4",
                &["multi-layer=true", "overlay-upper", "mkdir.path={{ mount 0 }}/upper"],
            ),
            layer_of("02/00", "erofs", &partition("partition-number=2")),
            layer_of("02/00", "erofs", &partition("partition-number=1")),
            wire("local", "local"),
        ])
        .unwrap();
        assert_eq!((specs.len(), &specs[0].driver, &specs[2].driver), (3, &Driver::Memory, &Driver::Local));
        let Driver::Layers(layers) = &specs[1].driver else { panic!("{specs:?}") };
        assert_eq!(layers.upper.source.to_string(), "PCI path 01/00");
        assert_eq!(layers.upper.options, ["noatime"]);
        assert_eq!(layers.directories.len(), 1);
        let lower: Vec<_> = layers.lower.iter().map(|layer| layer.source.to_string()).collect();
        assert_eq!(lower, ["PCI path 02/00, partition 2", "PCI path 02/00, partition 1"]);
    }

    #[test]
    fn layers_without_exactly_one_writable_one_are_refused() {
        let upper = || layer_of("01/00", "ext4", &["multi-layer=true", "overlay-upper"]);
        let lower = || layer_of("02/00", "erofs", &["multi-layer=true", "overlay-lower"]);
        let both = layer_of("02/00", "erofs", &["multi-layer=true", "overlay-lower", "overlay-upper"]);
        for bad in [vec![upper()], vec![lower()], vec![upper(), upper(), lower()], vec![upper(), both]] {
            let result = StorageSpec::all_from_wire(&bad);
            assert!(matches!(result, Err((_, InvalidStorage::Layers))), "{result:?}");
        }
        assert_eq!(StorageSpec::all_from_wire(&[upper(), lower()]).unwrap().len(), 1);
    }
}
