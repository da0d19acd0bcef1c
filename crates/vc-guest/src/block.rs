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
    /// The device is there, but sysfs does not say how it is called.
    #[error("the block device at PCI path {path} has no name in {uevent:?}")]
    Nameless {
        /// Where the device is.
        path: PciPath,
        /// The file of sysfs that should name it.
        uevent: PathBuf,
    },
}

/// Waits until a block device is at `path` and gives its device node, such as `/dev/vda`.
///
/// `sysfs` is where sysfs is mounted.
///
/// # Errors
/// [`BlockError::Absent`] once `deadline` has passed.
///
/// # Cancel safety
/// Dropping the future leaves nothing behind.
pub async fn wait_for_block(
    sysfs: &Path,
    path: &PciPath,
    mut events: BlockEvents,
    deadline: Deadline,
) -> Result<PathBuf, BlockError> {
    loop {
        if let Some(device) = find(sysfs, path) {
            return node(path, &device);
        }
        if tokio::time::timeout(deadline.remaining(), events.changed()).await.is_err() {
            let device = find(sysfs, path).ok_or_else(|| BlockError::Absent(path.clone()))?;
            return node(path, &device);
        }
    }
}

/// The directory of the block device in sysfs: `…/virtioN/block/vdX` below the PCI device.
fn find(sysfs: &Path, path: &PciPath) -> Option<PathBuf> {
    let mut device = sysfs.join("devices/pci0000:00");
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

/// `DEVNAME` is the node's name below `/dev`, which devtmpfs makes before the event is sent.
fn node(path: &PciPath, device: &Path) -> Result<PathBuf, BlockError> {
    let uevent = device.join("uevent");
    let text = std::fs::read_to_string(&uevent).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    let name = name.filter(|name| !name.is_empty() && !name.starts_with('/') && !name.contains(".."));
    name.map(|name| Path::new("/dev").join(name))
        .ok_or_else(|| BlockError::Nameless { path: path.clone(), uevent })
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

    fn plug(sysfs: &Path, (pci, virtio, name): (&str, &str, &str)) {
        let device = sysfs.join("devices/pci0000:00").join(pci).join(virtio).join("block").join(name);
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("uevent"), format!("MAJOR=254\nMINOR=0\nDEVNAME={name}\n")).unwrap();
    }

    #[tokio::test]
    async fn a_disk_is_found_by_its_slots_whatever_its_bus_and_letter() {
        let sysfs = tempfile::tempdir().unwrap();
        for port in PORTS {
            plug(sysfs.path(), port);
        }
        let (_sender, receiver) = watch::channel(0);
        for (path, node) in [("05/00", "/dev/vdb"), ("08.1/00", "/dev/vda")] {
            let events = BlockEvents::from_receiver(receiver.clone());
            let deadline = Deadline::after(Duration::ZERO);
            let found = wait_for_block(sysfs.path(), &path.parse().unwrap(), events, deadline).await;
            assert_eq!(found.unwrap(), Path::new(node));
        }
    }

    #[tokio::test]
    async fn a_disk_that_comes_late_is_awaited() {
        let sysfs = tempfile::tempdir().unwrap();
        let (sender, receiver) = watch::channel(0);
        let directory = sysfs.path().to_owned();
        let waiter = tokio::spawn(async move {
            let events = BlockEvents::from_receiver(receiver);
            let deadline = Deadline::after(Duration::from_secs(60));
            wait_for_block(&directory, &"05/00".parse().unwrap(), events, deadline).await
        });
        // An event of another device, and then the one that is waited for.
        sender.send_modify(|count| *count += 1);
        plug(sysfs.path(), PORTS[0]);
        sender.send_modify(|count| *count += 1);
        assert_eq!(waiter.await.unwrap().unwrap(), Path::new("/dev/vdb"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_never_comes_is_an_error_that_names_its_path() {
        let sysfs = tempfile::tempdir().unwrap();
        let (_sender, receiver) = watch::channel(0);
        let events = BlockEvents::from_receiver(receiver);
        let deadline = Deadline::after(Duration::from_secs(10));
        let path: PciPath = "05/00".parse().unwrap();
        let error = wait_for_block(sysfs.path(), &path, events, deadline).await.unwrap_err();
        assert!(matches!(error, BlockError::Absent(absent) if absent == path));
    }
}
