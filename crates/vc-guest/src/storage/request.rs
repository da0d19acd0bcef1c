//! A storage as the host asks for it, checked.

use vc_agent_protocol::agent;
use vc_types::{GuestPath, InvalidPath, InvalidPci, PciPath};

/// The driver option that names a directory to be created before the mount.
const CREATE_DIRECTORY: &str = "io.katacontainers.volume.overlayfs.create_directory=";

/// The longest list of options taken, in bytes.
const MAX_OPTIONS: usize = 64 * 1024;

/// Where a storage's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `blk`: a virtio block device at a PCI path.
    Block(PciPath),
    /// `overlayfs`: layers that are mounted already.
    Overlay,
    /// `bind`: a directory or file of the guest.
    Bind(GuestPath),
    /// `ephemeral`: memory.
    Ephemeral,
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
    Source(#[source] InvalidPci),
    /// A path that cannot be used.
    #[error("a storage's path is not usable")]
    Path(#[from] InvalidPath),
    /// The mount point is the guest's root.
    #[error("a storage cannot be mounted over the guest's root")]
    Root,
    /// More options than anybody needs.
    #[error("the options of the storage at {0} are longer than {MAX_OPTIONS} bytes")]
    TooLong(GuestPath),
}

impl StorageSpec {
    /// The drivers of this agent.
    pub const DRIVERS: [&str; 4] = ["blk", "overlayfs", "bind", "ephemeral"];

    /// Checks the storage that the host sent.
    ///
    /// # Errors
    /// [`InvalidStorage`] says what cannot be served.
    pub fn from_wire(wire: &agent::Storage) -> Result<Self, InvalidStorage> {
        let mount_point = GuestPath::new(&wire.mount_point)?;
        if mount_point.as_str() == "/" {
            return Err(InvalidStorage::Root);
        }
        if wire.options.iter().map(String::len).sum::<usize>() > MAX_OPTIONS {
            return Err(InvalidStorage::TooLong(mount_point));
        }
        refuse_unsupported(wire)?;
        let driver = match wire.driver.as_str() {
            "blk" => Driver::Block(wire.source.parse().map_err(InvalidStorage::Source)?),
            "overlayfs" => Driver::Overlay,
            "bind" => Driver::Bind(GuestPath::new(&wire.source)?),
            "ephemeral" => Driver::Ephemeral,
            other => return Err(InvalidStorage::Driver(other.to_owned())),
        };
        let directories =
            wire.driver_options.iter().filter_map(|option| option.strip_prefix(CREATE_DIRECTORY));
        Ok(Self {
            driver,
            fs_type: wire.fstype.clone(),
            options: wire.options.clone(),
            mount_point,
            directories: directories.map(GuestPath::new).collect::<Result<_, _>>()?,
        })
    }
}

/// An option that is silently dropped would be a mount other than the one asked for.
fn refuse_unsupported(wire: &agent::Storage) -> Result<(), InvalidStorage> {
    if wire.fs_group.is_some() {
        return Err(InvalidStorage::Unsupported("fs_group".to_owned()));
    }
    let unknown = wire.driver_options.iter().find(|option| !option.starts_with(CREATE_DIRECTORY));
    let marker = |option: &&String| option.starts_with("X-kata.") || option.starts_with("io.katacontainers.");
    match unknown.or_else(|| wire.options.iter().find(marker)) {
        Some(option) => Err(InvalidStorage::Unsupported(format!("the option {option:?}"))),
        None => Ok(()),
    }
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

    #[test]
    fn each_driver_reads_its_source() {
        let cases = [
            ("blk", "05/00", Driver::Block("05/00".parse().unwrap())),
            ("blk", "08.1/00", Driver::Block("08.1/00".parse().unwrap())),
            ("overlayfs", "overlay", Driver::Overlay),
            ("bind", "/run/x", Driver::Bind(GuestPath::new("/run/x").unwrap())),
            ("ephemeral", "tmpfs", Driver::Ephemeral),
        ];
        for (driver, source, want) in cases {
            assert_eq!(StorageSpec::from_wire(&wire(driver, source)).unwrap().driver, want);
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        let with = |change: fn(&mut agent::Storage)| {
            let mut storage = wire("blk", "05/00");
            change(&mut storage);
            StorageSpec::from_wire(&storage)
        };
        assert!(matches!(with(|s| s.driver = "scsi".into()), Err(InvalidStorage::Driver(_))));
        assert!(matches!(with(|s| s.source = "/dev/vda".into()), Err(InvalidStorage::Source(_))));
        assert!(matches!(with(|s| s.mount_point = "run".into()), Err(InvalidStorage::Path(_))));
        assert!(matches!(with(|s| s.mount_point = "/run/../etc".into()), Err(InvalidStorage::Path(_))));
        assert!(matches!(with(|s| s.mount_point = "/".into()), Err(InvalidStorage::Root)));
        assert!(matches!(with(|s| s.options = vec!["x".repeat(65_537)]), Err(InvalidStorage::TooLong(_))));
        let unsupported: [fn(&mut agent::Storage); 3] = [
            |s| s.fs_group = Some(agent::FSGroup::default()).into(),
            |s| s.options = vec!["X-kata.overlay-lower".into()],
            |s| s.driver_options = vec!["encryption_key=ephemeral".into()],
        ];
        for change in unsupported {
            assert!(matches!(with(change), Err(InvalidStorage::Unsupported(_))));
        }
    }
}
