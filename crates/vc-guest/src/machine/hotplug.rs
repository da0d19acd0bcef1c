//! OnlineCPUMem and MemHotplugByProbe: processors and memory that were plugged are put to use.
//!
//! The files are those of the kernel's `Documentation/admin-guide/mm/memory-hotplug.rst` and
//! `Documentation/core-api/cpu_hotplug.rst`.

use crate::uevent::DeviceEvents;
use std::path::{Path, PathBuf};
use vc_types::Deadline;

/// Why not everything that was plugged is in use.
#[derive(Debug, thiserror::Error)]
pub enum HotplugError {
    /// Fewer processors came than the host says it plugged.
    #[error("{got} of {wanted} plugged processors came in time")]
    Late {
        /// How many the host plugged.
        wanted: usize,
        /// How many came.
        got: usize,
    },
    /// The kernel refuses.
    #[error("the kernel does not put {0:?} to use")]
    Refused(PathBuf, #[source] std::io::Error),
    /// This kernel finds memory by itself.
    #[error("this kernel has no interface to tell it of memory")]
    NoProbe,
}

/// Puts every processor to use that is not, until it was `cpus` of them, and then, unless `cpu_only`, all
/// memory. `root` is where `sys` is mounted.
///
/// # Errors
/// [`HotplugError::Late`] once `deadline` has passed; what came is in use.
pub(crate) async fn bring_online(
    root: &Path,
    cpus: usize,
    cpu_only: bool,
    mut events: DeviceEvents,
    deadline: Deadline,
) -> Result<(), HotplugError> {
    let mut got = online_all(&root.join("sys/devices/system/cpu"), "cpu", "online", "1")?;
    while got < cpus {
        // After the deadline it looks once more, in case the event was lost.
        let late = tokio::time::timeout(deadline.remaining(), events.changed()).await.is_err();
        got += online_all(&root.join("sys/devices/system/cpu"), "cpu", "online", "1")?;
        if late && got < cpus {
            return Err(HotplugError::Late { wanted: cpus, got });
        }
    }
    if !cpu_only {
        // Movable, since the kernel could never give memory back that it uses for itself.
        online_all(&root.join("sys/devices/system/memory"), "memory", "state", "online_movable")?;
    }
    Ok(())
}

/// Tells the kernel of memory at each of `addresses`.
pub(crate) fn probe_memory(root: &Path, addresses: &[u64]) -> Result<(), HotplugError> {
    let probe = root.join("sys/devices/system/memory/probe");
    if !probe.exists() {
        return Err(HotplugError::NoProbe);
    }
    addresses.iter().try_for_each(|address| {
        std::fs::write(&probe, format!("{address:#x}"))
            .map_err(|error| HotplugError::Refused(probe.clone(), error))
    })
}

/// Writes `word` into `file` of every entry that is not in use, and gives their number.
fn online_all(directory: &Path, kind: &str, file: &str, word: &str) -> Result<usize, HotplugError> {
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let number = name.strip_prefix(kind);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut count = 0;
    for entry in entries.filter(is_one) {
        let state = std::fs::read_to_string(entry.join("online")).unwrap_or_default();
        if state.trim() != "0" {
            // In use; or the first processor, which cannot be switched and has no such file.
            continue;
        }
        let file = entry.join(file);
        std::fs::write(&file, word).map_err(|error| HotplugError::Refused(file, error))?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, read_to_string, write};
    use std::time::Duration;
    use tokio::sync::watch;

    fn plug(root: &Path, name: &str, online: &str) {
        let directory = root.join("sys/devices/system").join(name);
        create_dir_all(&directory).unwrap();
        write(directory.join("online"), online).unwrap();
    }

    fn state(root: &Path, name: &str) -> String {
        read_to_string(root.join("sys/devices/system").join(name)).unwrap()
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::ZERO)
    }

    #[tokio::test]
    async fn what_is_off_is_switched_on_and_nothing_else_is_touched() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        create_dir_all(root.join("sys/devices/system/cpu/cpu0")).unwrap();
        plug(root, "cpu/cpu1", "0\n");
        plug(root, "cpu/cpufreq", "0\n");
        plug(root, "memory/memory4", "1\n");
        plug(root, "memory/memory5", "0\n");
        let (_sender, receiver) = watch::channel(0);
        let events = DeviceEvents::from_receiver(receiver);
        bring_online(root, 1, true, events.clone(), soon()).await.unwrap();
        assert_eq!(state(root, "cpu/cpu1/online"), "1");
        assert_eq!(state(root, "cpu/cpufreq/online"), "0\n");
        assert!(!root.join("sys/devices/system/memory/memory5/state").exists());
        bring_online(root, 0, false, events, soon()).await.unwrap();
        assert_eq!(state(root, "memory/memory5/state"), "online_movable");
        assert!(!root.join("sys/devices/system/memory/memory4/state").exists());
    }

    #[tokio::test]
    async fn a_processor_that_comes_late_is_awaited_and_one_that_does_not_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().to_owned();
        let (sender, receiver) = watch::channel(0);
        let events = DeviceEvents::from_receiver(receiver);
        let waiting = tokio::spawn({
            let events = events.clone();
            async move {
                bring_online(&directory, 1, true, events, Deadline::after(Duration::from_secs(60))).await
            }
        });
        tokio::task::yield_now().await;
        plug(root.path(), "cpu/cpu1", "0\n");
        sender.send_modify(|count| *count += 1);
        waiting.await.unwrap().unwrap();
        let late = bring_online(root.path(), 2, true, events, soon()).await;
        assert!(matches!(late, Err(HotplugError::Late { wanted: 2, got: 0 })), "{late:?}");
    }

    #[test]
    fn memory_is_probed_where_the_kernel_can() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(probe_memory(root.path(), &[1]), Err(HotplugError::NoProbe)));
        create_dir_all(root.path().join("sys/devices/system/memory")).unwrap();
        write(root.path().join("sys/devices/system/memory/probe"), "").unwrap();
        probe_memory(root.path(), &[0x1_0000_0000]).unwrap();
        assert_eq!(state(root.path(), "memory/probe"), "0x100000000");
    }
}
