//! Block devices by PCI path: looked up in sysfs, awaited by the kernel's events.

use crate::uevent::BlockEvents;
use std::path::{Path, PathBuf};
use vc_types::{Deadline, PciPath, PciSlot};

/// No block device where one should be.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The device did not come in time.
    #[error("no block device came at PCI path {0}: is it plugged, and is its driver in the guest image?")]
    Absent(PciPath),
    /// The device is there, but has no node.
    #[error("the block device at PCI path {path} ({device:?}) has no node in /dev")]
    Nodeless {
        /// Where the device is.
        path: PciPath,
        /// Its directory in sysfs.
        device: PathBuf,
    },
}

/// Waits until a block device is at `path` and gives its device node, such as `/dev/vda`.
///
/// `root` is where `sys` and `dev` are mounted. The directory in sysfs comes first, then the node, then
/// the event; so a device without its node is one that is still coming.
///
/// # Errors
/// [`BlockError::Absent`] or [`BlockError::Nodeless`] once `deadline` has passed.
///
/// # Cancel safety
/// Dropping the future leaves nothing behind.
pub async fn wait_for_block(
    root: &Path,
    path: &PciPath,
    mut events: BlockEvents,
    deadline: Deadline,
) -> Result<PathBuf, BlockError> {
    let mut late = false;
    loop {
        let device = find(root, path);
        if let Some(node) = device.as_deref().and_then(|device| node(root, device)) {
            return Ok(node);
        }
        if late {
            return Err(match device {
                None => BlockError::Absent(path.clone()),
                Some(device) => BlockError::Nodeless { path: path.clone(), device },
            });
        }
        // After the deadline it looks once more, in case the event was lost.
        late = tokio::time::timeout(deadline.remaining(), events.changed()).await.is_err();
    }
}

/// The directory of the block device in sysfs: `…/virtioN/block/vdX` below the PCI device.
fn find(root: &Path, path: &PciPath) -> Option<PathBuf> {
    let mut device = root.join("sys/devices/pci0000:00");
    for slot in path.slots() {
        device = children(&device).find(|child| is_slot(child, *slot))?;
    }
    let function = children(&device).find(|child| file_name(child).starts_with("virtio"))?;
    children(&function.join("block")).next()
}

/// Whether a directory of sysfs, named `domain:bus:device.function`, is in this slot of its bus.
fn is_slot(directory: &Path, slot: PciSlot) -> bool {
    let wanted = format!("{:02x}.{:x}", slot.device(), slot.function());
    let name = file_name(directory);
    name.len() == "0000:00:00.0".len() && name.rsplit(':').next() == Some(&wanted)
}

/// The device's node below `dev`, once it is there: `DEVNAME` of its `uevent` file names it.
fn node(root: &Path, device: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(device.join("uevent")).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    let plain = !name.is_empty() && !name.starts_with('/') && !name.contains("..");
    let node = root.join("dev").join(name);
    (plain && node.exists()).then_some(node)
}

fn children(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::watch;

    /// A root port in slot 5 and one in slot 8.1, as q35 with qboot numbers their buses.
    const PORTS: [(&str, &str, &str); 2] =
        [("0000:00:05.0/0000:08:00.0", "virtio3", "vdb"), ("0000:00:08.1/0000:20:00.0", "virtio4", "vda")];

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
            let events = BlockEvents::from_receiver(receiver.clone());
            let deadline = Deadline::after(Duration::ZERO);
            let found = wait_for_block(root.path(), &path.parse().unwrap(), events, deadline).await;
            assert_eq!(found.unwrap(), root.path().join(node));
        }
    }

    #[tokio::test]
    async fn a_disk_that_comes_late_is_awaited() {
        let root = tempfile::tempdir().unwrap();
        let (sender, receiver) = watch::channel(0);
        let directory = root.path().to_owned();
        let waiter = tokio::spawn(async move {
            let events = BlockEvents::from_receiver(receiver);
            let deadline = Deadline::after(Duration::from_secs(60));
            wait_for_block(&directory, &"05/00".parse().unwrap(), events, deadline).await
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

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_never_comes_is_an_error_that_names_its_path() {
        let root = tempfile::tempdir().unwrap();
        let (_sender, receiver) = watch::channel(0);
        let events = BlockEvents::from_receiver(receiver);
        let deadline = Deadline::after(Duration::from_secs(10));
        let path: PciPath = "05/00".parse().unwrap();
        let error = wait_for_block(root.path(), &path, events, deadline).await.unwrap_err();
        assert!(matches!(error, BlockError::Absent(absent) if absent == path));
    }
}
