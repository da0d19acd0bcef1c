//! Block devices: looked up in sysfs, awaited by the kernel's events.

mod address;

pub use address::{BlockAddress, DeviceName, InvalidAddress, ScsiAddress};

use crate::uevent::DeviceEvents;
use address::children;
use nix::errno::Errno;
use std::fs::File;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vc_types::Deadline;

/// A whole disk, or one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSource {
    /// The disk.
    pub address: BlockAddress,
    /// The partition's number in the disk's table; the whole disk when there is none.
    pub partition: Option<NonZeroU32>,
}

impl From<BlockAddress> for BlockSource {
    fn from(address: BlockAddress) -> Self {
        Self { address, partition: None }
    }
}

impl std::fmt::Display for BlockSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.partition {
            Some(number) => write!(f, "{}, partition {number}", self.address),
            None => self.address.fmt(f),
        }
    }
}

/// No block device where one should be.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The device did not come in time.
    #[error("no block device came at {0}: is it plugged, and is its driver in the guest image?")]
    Absent(BlockSource),
    /// The device is there, but has no node that can be opened.
    #[error("the block device at {source_name} ({device:?}) has no node in /dev that can be opened")]
    NotReady {
        /// Where the device is.
        source_name: BlockSource,
        /// Its directory in sysfs.
        device: PathBuf,
    },
}

/// Waits until a block device is at `source` and gives its device node, such as `/dev/vda`.
///
/// `root` is where `sys` and `dev` are mounted. The directory in sysfs comes first, then the node, then
/// the disk behind it, then the event (Linux, `device_add_disk`); so a device without a node, or whose
/// node answers ENXIO, is one that is still coming.
///
/// # Errors
/// [`BlockError::Absent`] or [`BlockError::NotReady`] once `deadline` has passed.
///
/// # Cancel safety
/// Dropping the future leaves nothing behind.
pub async fn wait_for_block(
    root: &Path,
    source: &BlockSource,
    mut events: DeviceEvents,
    deadline: Deadline,
) -> Result<PathBuf, BlockError> {
    let mut late = false;
    loop {
        let device = find(root, source);
        if let Some(node) = device.as_deref().and_then(|device| node(root, device))
            && opens(&node, deadline).await
        {
            return Ok(node);
        }
        if late {
            return Err(match device {
                None => BlockError::Absent(source.clone()),
                Some(device) => BlockError::NotReady { source_name: source.clone(), device },
            });
        }
        // After the deadline it looks once more, in case the event was lost.
        late = tokio::time::timeout(deadline.remaining(), events.changed()).await.is_err();
    }
}

/// The directory in sysfs of the disk, or of its partition: a directory below it whose file `partition` has the number.
fn find(root: &Path, source: &BlockSource) -> Option<PathBuf> {
    let disk = source.address.find(root)?;
    let Some(number) = source.partition else { return Some(disk) };
    let is_wanted = |child: &PathBuf| {
        let text = std::fs::read_to_string(child.join("partition"));
        text.is_ok_and(|text| text.trim().parse() == Ok(number))
    };
    children(&disk).find(is_wanted)
}

/// The device's node below `dev`: `DEVNAME` of its `uevent` file names it.
fn node(root: &Path, device: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(device.join("uevent")).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    let plain = !name.is_empty() && !name.starts_with('/') && !name.contains("..");
    plain.then(|| root.join("dev").join(name))
}

/// Whether there is a disk behind the node. An error other than ENOENT and ENXIO is for whoever uses the node to tell.
///
/// On its own thread, because the first `open` waits until the kernel has read the disk's partition table.
async fn opens(node: &Path, deadline: Deadline) -> bool {
    let node = node.to_owned();
    let open = tokio::task::spawn_blocking(move || File::open(node).map(drop));
    let Ok(Ok(opened)) = tokio::time::timeout(deadline.remaining().max(LAST_LOOK), open).await else {
        return false;
    };
    let error = opened.err().and_then(|error| error.raw_os_error()).map(Errno::from_raw);
    !matches!(error, Some(Errno::ENOENT | Errno::ENXIO))
}

/// How long a disk may take to open when the deadline has passed, so that one that is there is found.
const LAST_LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::watch;

    /// A root port in slot 5 and one in slot 8.1, as q35 with qboot numbers their buses.
    const PORTS: [(&str, &str, &str); 2] =
        [("0000:00:05.0/0000:08:00.0", "virtio3", "vdb"), ("0000:00:08.1/0000:20:00.0", "virtio4", "vda")];

    fn disk(path: &str) -> BlockSource {
        BlockAddress::Pci(path.parse().unwrap()).into()
    }

    fn plug(root: &Path, port: (&str, &str, &str)) {
        announce(root, port);
        make_node(root, port.2);
    }

    fn announce(root: &Path, (pci, virtio, name): (&str, &str, &str)) {
        let device = root.join("sys/devices/pci0000:00").join(pci).join(virtio).join("block").join(name);
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("uevent"), format!("MAJOR=254\nMINOR=0\nDEVNAME={name}\n")).unwrap();
    }

    fn make_node(root: &Path, name: &str) {
        std::fs::create_dir_all(root.join("dev")).unwrap();
        std::fs::write(root.join("dev").join(name), "").unwrap();
    }

    #[tokio::test]
    async fn a_disk_is_found_by_its_slots_whatever_its_bus_and_letter() {
        let root = tempfile::tempdir().unwrap();
        for port in PORTS {
            plug(root.path(), port);
        }
        let (_sender, receiver) = watch::channel(0);
        for (path, node) in [("05/00", "dev/vdb"), ("08.1/00", "dev/vda")] {
            let events = DeviceEvents::from_receiver(receiver.clone());
            let deadline = Deadline::after(Duration::ZERO);
            let found = wait_for_block(root.path(), &disk(path), events, deadline).await;
            assert_eq!(found.unwrap(), root.path().join(node));
        }
    }

    #[tokio::test]
    async fn a_disk_that_comes_late_is_awaited() {
        let root = tempfile::tempdir().unwrap();
        let (sender, receiver) = watch::channel(0);
        let directory = root.path().to_owned();
        let waiter = tokio::spawn(async move {
            let events = DeviceEvents::from_receiver(receiver);
            let deadline = Deadline::after(Duration::from_secs(60));
            wait_for_block(&directory, &disk("05/00"), events, deadline).await
        });
        // An event of another device, then one while the node is still to come, then the right one.
        sender.send_modify(|count| *count += 1);
        announce(root.path(), PORTS[0]);
        sender.send_modify(|count| *count += 1);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished(), "a device without a node is not there yet");
        make_node(root.path(), "vdb");
        sender.send_modify(|count| *count += 1);
        assert_eq!(waiter.await.unwrap().unwrap(), root.path().join("dev/vdb"));
    }

    /// `open` of a socket's node fails with ENXIO, as that of a disk does whose node came before the disk.
    #[tokio::test]
    async fn a_node_without_its_disk_is_not_ready() {
        let root = tempfile::tempdir().unwrap();
        announce(root.path(), PORTS[0]);
        let node = root.path().join("dev/vdb");
        std::fs::create_dir(root.path().join("dev")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(&node).unwrap();
        let (sender, receiver) = watch::channel(0);
        let find = |deadline| {
            let events = DeviceEvents::from_receiver(receiver.clone());
            let directory = root.path().to_owned();
            async move { wait_for_block(&directory, &disk("05/00"), events, deadline).await }
        };
        let error = find(Deadline::after(Duration::ZERO)).await.unwrap_err();
        assert!(matches!(error, BlockError::NotReady { .. }), "{error}");
        let waiter = tokio::spawn(find(Deadline::after(Duration::from_secs(60))));
        tokio::task::yield_now().await;
        drop(socket);
        std::fs::remove_file(&node).unwrap();
        make_node(root.path(), "vdb");
        sender.send_modify(|count| *count += 1);
        assert_eq!(waiter.await.unwrap().unwrap(), node);
    }

    #[tokio::test]
    async fn a_partition_is_found_by_its_number_whatever_its_name() {
        let root = tempfile::tempdir().unwrap();
        plug(root.path(), PORTS[0]);
        let (pci, virtio, name) = PORTS[0];
        let directory =
            root.path().join("sys/devices/pci0000:00").join(pci).join(virtio).join("block").join(name);
        for (name, number) in [("vdb1", 2), ("vdb2", 1), ("vdb3", 12)] {
            let partition = directory.join(name);
            std::fs::create_dir_all(&partition).unwrap();
            std::fs::write(partition.join("partition"), format!("{number}\n")).unwrap();
            std::fs::write(partition.join("uevent"), format!("DEVNAME={name}\nPARTN={number}\n")).unwrap();
            make_node(root.path(), name);
        }
        let (_sender, receiver) = watch::channel(0);
        for (number, want) in [(1, Some("vdb2")), (2, Some("vdb1")), (3, None)] {
            let source = BlockSource { partition: NonZeroU32::new(number), ..disk("05/00") };
            let events = DeviceEvents::from_receiver(receiver.clone());
            let found = wait_for_block(root.path(), &source, events, Deadline::after(Duration::ZERO)).await;
            assert_eq!(found.ok(), want.map(|name| root.path().join("dev").join(name)), "{number}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_never_comes_is_an_error_that_names_its_path() {
        let root = tempfile::tempdir().unwrap();
        let (_sender, receiver) = watch::channel(0);
        let events = DeviceEvents::from_receiver(receiver);
        let deadline = Deadline::after(Duration::from_secs(10));
        let source = disk("05/00");
        let error = wait_for_block(root.path(), &source, events, deadline).await.unwrap_err();
        assert!(matches!(error, BlockError::Absent(absent) if absent == source));
    }
}
