//! A storage as the host asks for it, checked.

use super::hugepages::HugePages;
use super::layers::{self, Layer, Layers};
use super::markers;
use super::ownership::FsGroup;
use super::verity::VerityError;
use crate::block::InvalidAddress;
use vc_agent_protocol::agent;
use vc_agent_protocol::types::FSGroupChangePolicy;
use vc_types::{GuestPath, InvalidPath, InvalidPci};

/// The driver option that names a directory to be created before the mount.
const CREATE_DIRECTORY: &str = "io.katacontainers.volume.overlayfs.create_directory=";

/// The option by which an overlay is to get a writable layer in the guest's memory.
const OVERLAY_RW: &str = "io.katacontainers.fs-opt.overlay-rw";

/// The longest list of options taken, in bytes.
const MAX_OPTIONS: usize = 64 * 1024;

/// Where a storage's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `blk`, `scsi`, `mmioblk`, `nvdimm`: a block device.
    Block(Layer),
    /// The same, as layers of one overlay (`X-kata.multi-layer=true`).
    Layers(Box<Layers>),
    /// `virtio-fs`: a directory of the host, by its tag.
    VirtioFs(String),
    /// `overlayfs`: layers that are mounted already.
    Overlay {
        /// Whether it gets a writable layer in memory.
        writable: bool,
    },
    /// `bind`: a directory or file of the guest.
    Bind(GuestPath),
    /// `ephemeral`: memory.
    Memory,
    /// `ephemeral` with the file system `hugetlbfs`.
    HugePages(HugePages),
    /// `local`: a directory of the guest.
    Local,
    /// `watchable-bind`: a copy of a directory or file, which follows it.
    Watchable(GuestPath),
}

/// One storage of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageSpec {
    /// Where its bytes come from.
    pub driver: Driver,
    /// The file system's name.
    pub fs_type: String,
    /// The mount options.
    pub options: Vec<String>,
    /// Where it is mounted; two storages of one mount point are one mount.
    pub mount_point: GuestPath,
    /// Directories to be made before it is mounted.
    pub directories: Vec<GuestPath>,
    /// The group that everything in it is to belong to.
    pub fs_group: Option<FsGroup>,
    /// The group that its root is to belong to (`fsgid=`).
    pub root_gid: Option<u32>,
    /// Whether it stays until the sandbox ends, for containers that are yet to come.
    pub shared: bool,
}

/// Why a storage is refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidStorage {
    /// A driver that this agent does not have.
    #[error("this agent has no storage driver {0:?}: it has {names}", names = StorageSpec::DRIVERS.join(", "))]
    Driver(String),
    /// A feature that this agent does not have.
    #[error("this agent does not support {0} of a storage")]
    Unsupported(String),
    /// A block device's source is no PCI path.
    #[error("the source of a `blk` storage is a PCI path")]
    Pci(#[source] InvalidPci),
    /// A block device's source is no address of its kind.
    #[error("the source of a `{driver}` storage is not usable")]
    Address {
        /// The driver.
        driver: &'static str,
        /// Why.
        source: InvalidAddress,
    },
    /// A share without the tag that names it.
    #[error("the source of a `virtio-fs` storage is the tag of a share, of 1 to 36 bytes")]
    Tag,
    /// A path that cannot be used.
    #[error("a storage's path is not usable")]
    Path(#[from] InvalidPath),
    /// The mount point is the guest's root.
    #[error("a storage cannot be mounted over the guest's root")]
    Root,
    /// More options than anybody needs.
    #[error("the options of the storage at {0} are longer than {MAX_OPTIONS} bytes")]
    TooLong(GuestPath),
    /// A marker that is unknown or malformed.
    #[error("the marker {0:?} is not usable")]
    Marker(String),
    /// A layer cannot be verified as asked for.
    #[error("a layer cannot be verified")]
    Verity(#[from] VerityError),
    /// Layers that make no overlay.
    #[error("layers of one overlay need exactly one writable one and one or more below it")]
    Layers,
    /// Huge pages without their sizes.
    #[error("a hugetlbfs needs the options pagesize= and size=, in bytes")]
    HugePages,
    /// An option with a value that is not usable.
    #[error("the option {0:?} is not usable")]
    Option(String),
}

impl StorageSpec {
    /// The drivers of this agent.
    pub const DRIVERS: [&str; 10] = [
        "blk",
        "scsi",
        "mmioblk",
        "nvdimm",
        "virtio-fs",
        "overlayfs",
        "bind",
        "ephemeral",
        "local",
        "watchable-bind",
    ];

    /// Checks the storages of one request. The layers of an overlay become one storage, at the place of
    /// the first of them.
    ///
    /// # Errors
    /// The mount point, and what cannot be served.
    pub fn all_from_wire(wire: &[agent::Storage]) -> Result<Vec<Self>, (String, InvalidStorage)> {
        let mut specs = Vec::new();
        let mut layers = Vec::new();
        for storage in wire {
            let failed = |error| (storage.mount_point.clone(), error);
            let (markers, options) = markers::split(&storage.options).map_err(failed)?;
            if markers.multi_layer {
                if layers.is_empty() {
                    specs.push(None);
                }
                layers.push((storage, markers, options));
            } else {
                specs.push(Some(Self::from_wire(storage, &markers, options).map_err(failed)?));
            }
        }
        if let Some((first, ..)) = layers.first() {
            let mount_point = first.mount_point.clone();
            let overlay = layers::overlay_of(layers).map_err(|error| (mount_point, error))?;
            let mut overlay = Some(overlay);
            specs.iter_mut().filter(|spec| spec.is_none()).for_each(|spec| *spec = overlay.take());
        }
        Ok(specs.into_iter().flatten().collect())
    }

    /// The block devices that it needs, in the order in which they are mounted.
    pub(super) fn layers(&self) -> Vec<&Layer> {
        match &self.driver {
            Driver::Block(layer) => vec![layer],
            Driver::Layers(layers) => std::iter::once(&layers.upper).chain(&layers.lower).collect(),
            _ => Vec::new(),
        }
    }

    fn from_wire(
        wire: &agent::Storage,
        markers: &markers::Markers,
        options: Vec<String>,
    ) -> Result<Self, InvalidStorage> {
        if markers.is_upper || markers.is_lower || !markers.directories.is_empty() {
            return Err(InvalidStorage::Marker("X-kata.multi-layer is missing".to_owned()));
        }
        let mut spec = Self::without_driver(wire, options)?;
        let writable = take(&mut spec.options, |option| (option == OVERLAY_RW).then_some(())).is_some();
        let marker = spec.options.iter().find(|option| option.starts_with("io.katacontainers."));
        if let Some(option) = marker {
            return Err(InvalidStorage::Unsupported(format!("the option {option:?}")));
        }
        spec.driver = match wire.driver.as_str() {
            "virtio-fs" if (1..=36).contains(&wire.source.len()) => Driver::VirtioFs(wire.source.clone()),
            "virtio-fs" => return Err(InvalidStorage::Tag),
            "overlayfs" => Driver::Overlay { writable },
            "bind" => Driver::Bind(GuestPath::new(&wire.source)?),
            "watchable-bind" => Driver::Watchable(GuestPath::new(&wire.source)?),
            "ephemeral" if wire.fstype == "hugetlbfs" => {
                Driver::HugePages(HugePages::parse(&spec.options).ok_or(InvalidStorage::HugePages)?)
            }
            "ephemeral" => Driver::Memory,
            "local" => Driver::Local,
            _ => Driver::Block(layers::layer(wire, markers, spec.options.clone())?),
        };
        let wanted_elsewhere =
            (writable && !matches!(spec.driver, Driver::Overlay { .. })).then_some(OVERLAY_RW);
        let verity =
            (markers.verity.is_some() && !matches!(spec.driver, Driver::Block(_))).then_some("dm-verity");
        match wanted_elsewhere.or(verity) {
            Some(option) => Err(InvalidStorage::Unsupported(format!("{option} for this driver"))),
            None => Ok(spec),
        }
    }

    /// What all drivers have in common; the driver is still to be told.
    pub(super) fn without_driver(
        wire: &agent::Storage,
        mut options: Vec<String>,
    ) -> Result<Self, InvalidStorage> {
        let mount_point = GuestPath::new(&wire.mount_point)?;
        if mount_point.as_str() == "/" {
            return Err(InvalidStorage::Root);
        }
        if wire.options.iter().map(String::len).sum::<usize>() > MAX_OPTIONS {
            return Err(InvalidStorage::TooLong(mount_point));
        }
        let directory = |option: &String| option.strip_prefix(CREATE_DIRECTORY).map(GuestPath::new);
        let unknown = wire.driver_options.iter().find(|option| directory(option).is_none());
        if let Some(option) = unknown {
            // What is silently dropped would be a mount other than the one asked for.
            return Err(InvalidStorage::Unsupported(format!("the driver option {option:?}")));
        }
        let gid = take(&mut options, |option| option.strip_prefix("fsgid=").map(str::to_owned));
        let root_gid = gid
            .map(|gid| gid.parse().map_err(|_| InvalidStorage::Option(format!("fsgid={gid}"))))
            .transpose()?;
        let fs_group = wire.fs_group.as_ref().map(|group| FsGroup {
            gid: group.group_id,
            only_on_mismatch: group.group_change_policy == FSGroupChangePolicy::OnRootMismatch.into(),
        });
        Ok(Self {
            driver: Driver::Memory,
            fs_type: wire.fstype.clone(),
            options,
            mount_point,
            directories: wire.driver_options.iter().filter_map(directory).collect::<Result<_, _>>()?,
            fs_group,
            root_gid,
            shared: wire.shared,
        })
    }
}

/// Takes the options away for which `wanted` gives a value; the last value counts.
fn take<T>(options: &mut Vec<String>, wanted: impl Fn(&str) -> Option<T>) -> Option<T> {
    let value = options.iter().rev().find_map(|option| wanted(option));
    options.retain(|option| wanted(option).is_none());
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(driver: &str, source: &str) -> agent::Storage {
        let text = str::to_owned;
        agent::Storage {
            driver: text(driver),
            source: text(source),
            fstype: text("erofs"),
            mount_point: text("/run/layer"),
            options: vec![text("ro")],
            ..Default::default()
        }
    }

    fn parse(wire: agent::Storage) -> Result<StorageSpec, InvalidStorage> {
        let mut specs = StorageSpec::all_from_wire(&[wire]).map_err(|(_, error)| error)?;
        Ok(specs.remove(0))
    }

    fn address(spec: &StorageSpec) -> String {
        match &spec.driver {
            Driver::Block(layer) => layer.source.to_string(),
            other => panic!("no block device: {other:?}"),
        }
    }

    #[test]
    fn each_block_driver_reads_its_source() {
        let cases = [
            ("blk", "05/00", "PCI path 05/00"),
            ("blk", "08.1/00", "PCI path 08.1/00"),
            ("scsi", "0:3", "SCSI address 0:3"),
            ("mmioblk", "/dev/vdb", "/dev/vdb"),
            ("nvdimm", "/dev/pmem0", "/dev/pmem0"),
        ];
        for (driver, source, want) in cases {
            assert_eq!(address(&parse(wire(driver, source)).unwrap()), want);
        }
    }

    #[test]
    fn the_other_drivers_read_theirs() {
        let path = |path: &str| GuestPath::new(path).unwrap();
        let cases = [
            ("overlayfs", "overlay", Driver::Overlay { writable: false }),
            ("bind", "/run/x", Driver::Bind(path("/run/x"))),
            ("watchable-bind", "/run/x", Driver::Watchable(path("/run/x"))),
            ("ephemeral", "tmpfs", Driver::Memory),
            ("local", "local", Driver::Local),
            ("virtio-fs", "kataShared", Driver::VirtioFs("kataShared".to_owned())),
        ];
        for (driver, source, want) in cases {
            assert_eq!(parse(wire(driver, source)).unwrap().driver, want);
        }
        let mut huge = wire("ephemeral", "nodev");
        huge.fstype = "hugetlbfs".to_owned();
        assert!(matches!(parse(huge.clone()), Err(InvalidStorage::HugePages)));
        huge.options = vec!["pagesize=2097152,size=4194304".to_owned()];
        let pages = HugePages { page_size: 2 << 20, size: 4 << 20 };
        assert_eq!(parse(huge).unwrap().driver, Driver::HugePages(pages));
    }

    #[test]
    fn options_that_are_ours_never_reach_the_kernel() {
        let mut storage = wire("overlayfs", "overlay");
        storage.options = [OVERLAY_RW, "fsgid=7", "lowerdir=/a", "fsgid=8"].map(str::to_owned).to_vec();
        let spec = parse(storage).unwrap();
        assert_eq!(spec.driver, Driver::Overlay { writable: true });
        assert_eq!((spec.options, spec.root_gid), (vec!["lowerdir=/a".to_owned()], Some(8)));
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        let with = |change: fn(&mut agent::Storage)| {
            let mut storage = wire("blk", "05/00");
            change(&mut storage);
            parse(storage)
        };
        assert!(matches!(with(|s| s.driver = "9p".into()), Err(InvalidStorage::Driver(_))));
        assert!(matches!(with(|s| s.source = "/dev/vda".into()), Err(InvalidStorage::Pci(_))));
        assert!(matches!(
            with(|s| s.driver = "scsi".into()),
            Err(InvalidStorage::Address { driver: "scsi", .. })
        ));
        assert!(matches!(with(|s| s.mount_point = "run".into()), Err(InvalidStorage::Path(_))));
        assert!(matches!(with(|s| s.mount_point = "/run/../etc".into()), Err(InvalidStorage::Path(_))));
        assert!(matches!(with(|s| s.mount_point = "/".into()), Err(InvalidStorage::Root)));
        assert!(matches!(with(|s| s.options = vec!["x".repeat(65_537)]), Err(InvalidStorage::TooLong(_))));
        assert!(matches!(with(|s| s.options = vec!["fsgid=x".into()]), Err(InvalidStorage::Option(_))));
        assert!(matches!(
            with(|s| s.options = vec!["X-kata.overlay-lower".into()]),
            Err(InvalidStorage::Marker(_))
        ));
        let unsupported: [fn(&mut agent::Storage); 3] = [
            |s| s.options = vec!["io.katacontainers.fs-opt.block_device=file".into()],
            |s| s.options = vec![OVERLAY_RW.into()],
            |s| s.driver_options = vec!["encryption_key=ephemeral".into()],
        ];
        for change in unsupported {
            assert!(matches!(with(change), Err(InvalidStorage::Unsupported(_))));
        }
    }
}
