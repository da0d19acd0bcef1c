//! Block devices: looked up in sysfs, awaited by the kernel's events.

mod address;

pub use address::{BlockAddress, DeviceName, InvalidAddress, ScsiAddress};

use crate::uevent::DeviceEvents;
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
        let device = Disks::below(root).device(source);
        if let Ok(device) = &device
            && let Some(node) = node(root, device)
            && opens_in_time(&node, deadline).await
        {
            return Ok(node);
        }
        if late {
            return Err(match device {
                Err(error) => error,
                Ok(device) => BlockError::NotReady { source_name: source.clone(), device },
            });
        }
        // After the deadline it looks once more, in case the event was lost.
        late = tokio::time::timeout(deadline.remaining(), events.changed()).await.is_err();
    }
}

/// Finds the nodes of block devices that are there.
///
/// The disk that was found last is not looked for, nor opened, again: the layers of a container are often
/// partitions of one, and a look into the tree of devices costs a millisecond under emulation. So it is for
/// one request, not to be kept.
#[derive(Debug)]
pub(crate) struct Disks<'a> {
    root: &'a Path,
    last: Option<Disk>,
}

#[derive(Debug)]
struct Disk {
    address: BlockAddress,
    /// Its directory in sysfs.
    directory: PathBuf,
    /// Whether it, or a partition of it, was opened: the kernel lets nobody in before it has read the partition
    /// table and made all the nodes (`bdev_disk_changed` in Linux's block/partitions/core.c holds `open_mutex`).
    is_read: bool,
}

impl<'a> Disks<'a> {
    /// `root` is where `sys` and `dev` are mounted.
    pub(crate) fn below(root: &'a Path) -> Self {
        Self { root, last: None }
    }

    /// Whether the disk at `address` was the one that was found last.
    pub(crate) fn knows(&self, address: &BlockAddress) -> bool {
        self.last.as_ref().is_some_and(|disk| disk.address == *address)
    }

    /// The device node of `source`, which opens. Waits while the kernel reads the disk's partition table.
    pub(crate) fn node(&mut self, source: &BlockSource) -> Result<PathBuf, BlockError> {
        let device = self.device(source)?;
        let node = node(self.root, &device);
        if self.last.as_ref().is_some_and(|disk| disk.is_read) {
            return node.filter(|node| node.exists()).ok_or_else(|| BlockError::Absent(source.clone()));
        }
        let node = node.filter(|node| opens(node));
        let node = node.ok_or_else(|| BlockError::NotReady { source_name: source.clone(), device })?;
        self.last.iter_mut().for_each(|disk| disk.is_read = true);
        Ok(node)
    }

    /// The directory in sysfs of the disk, or of its partition.
    fn device(&mut self, source: &BlockSource) -> Result<PathBuf, BlockError> {
        let disk = self.disk(&source.address);
        let device = disk.and_then(|disk| match source.partition {
            Some(number) => {
                let directory = partition(&disk.directory, number)?;
                (disk.is_read || directory.join("partition").exists()).then_some(directory)
            }
            None => Some(disk.directory.clone()),
        });
        device.ok_or_else(|| BlockError::Absent(source.clone()))
    }

    fn disk(&mut self, address: &BlockAddress) -> Option<&Disk> {
        if !self.knows(address) {
            let directory = address.find(self.root)?;
            self.last = Some(Disk { address: address.clone(), directory, is_read: false });
        }
        self.last.as_ref()
    }
}

/// The directory in sysfs of a partition, which the kernel calls after its disk: `vda1`, but `nvme0n1p1`
/// (`add_partition` in Linux's block/partitions/core.c).
fn partition(disk: &Path, number: NonZeroU32) -> Option<PathBuf> {
    let name = disk.file_name()?.to_str()?;
    let separator = if name.ends_with(|letter: char| letter.is_ascii_digit()) { "p" } else { "" };
    Some(disk.join(format!("{name}{separator}{number}")))
}

/// The device's node below `dev`. It is called as the device is, where sysfs has `!` for the slash of a subdirectory.
fn node(root: &Path, device: &Path) -> Option<PathBuf> {
    let name = device.file_name()?.to_str()?.replace('!', "/");
    let plain = !name.starts_with('/') && !name.contains("..");
    plain.then(|| root.join("dev").join(name))
}

/// Whether there is a disk behind the node. An error other than ENOENT and ENXIO is for whoever uses the node to tell.
fn opens(node: &Path) -> bool {
    let error = File::open(node).err().and_then(|error| error.raw_os_error()).map(Errno::from_raw);
    !matches!(error, Some(Errno::ENOENT | Errno::ENXIO))
}

/// The same on its own thread, because the first `open` waits until the kernel has read the disk's partition table.
async fn opens_in_time(node: &Path, deadline: Deadline) -> bool {
    let node = node.to_owned();
    let open = tokio::task::spawn_blocking(move || opens(&node));
    matches!(tokio::time::timeout(deadline.remaining().max(LAST_LOOK), open).await, Ok(Ok(true)))
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

    #[test]
    fn a_partition_is_called_after_its_disk() {
        let root = tempfile::tempdir().unwrap();
        let disks = [("05/00", PORTS[0].0, "vdb", "vdb2"), ("08.1/00", PORTS[1].0, "nvme0n1", "nvme0n1p2")];
        for (_, pci, name, partition) in disks {
            plug(root.path(), (pci, "virtio3", name));
            let tree = root.path().join("sys/devices/pci0000:00").join(pci);
            // What is in a disk's directory and ends in its number is not always a partition.
            for child in [partition.to_owned(), format!("{name}3")] {
                std::fs::create_dir(tree.join("virtio3/block").join(name).join(&child)).unwrap();
                make_node(root.path(), &child);
            }
            let number = tree.join("virtio3/block").join(name).join(partition).join("partition");
            std::fs::write(number, "2\n").unwrap();
        }
        let mut found = Disks::below(root.path());
        for (path, _, _, want) in disks {
            for (number, want) in [(1, None), (3, None), (2, Some(want)), (1, None)] {
                let source = BlockSource { partition: NonZeroU32::new(number), ..disk(path) };
                let want = want.map(|name| root.path().join("dev").join(name));
                assert_eq!(found.node(&source).ok(), want, "{source}");
            }
            // What the disk does not have once its table was read is not waited for as if it were coming.
            let absent = BlockSource { partition: NonZeroU32::new(1), ..disk(path) };
            assert!(matches!(found.node(&absent), Err(BlockError::Absent(_))));
            assert!(found.knows(&disk(path).address));
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
