//! Notice of changes to the mount table.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::process::{OWN_TABLE, ProcessView};
use crate::sys::fanotify::{ATTACH, DETACH, OVERFLOW, watch_mounts};
use crate::sys::poll::poll;

/// Tells that something changed in a mount namespace: a mount, an unmount, a move or a remount.
///
/// Works on any kernel and for any user. For an event loop, [`AsFd`] gives the file to wait on for priority
/// events (`POLLPRI`, `EPOLLPRI`).
#[derive(Debug)]
pub struct MountWatch {
    table: File,
}

impl MountWatch {
    /// Starts to watch the caller's mounts; changes before this are not told.
    ///
    /// # Errors
    /// What the kernel says when `/proc` is not mounted.
    pub fn open() -> io::Result<Self> {
        Ok(Self { table: File::open(OWN_TABLE)? })
    }

    /// Starts to watch the mounts of another process.
    ///
    /// # Errors
    /// What the kernel says when the process is gone or may not be looked at.
    pub fn of_process(view: &ProcessView) -> io::Result<Self> {
        Ok(Self { table: File::open(view.table())? })
    }

    /// Waits until something changed since the last call, or `timeout` passed (`None`: no end); whether
    /// something did. Several changes may be told as one.
    ///
    /// # Errors
    /// What the kernel says when it cannot wait.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        poll(self.table.as_fd(), libc::POLLPRI, timeout)
    }
}

impl AsFd for MountWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.table.as_fd()
    }
}

/// What happened to one mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MountEvent {
    /// It came.
    Attached(u64),
    /// It went.
    Detached(u64),
    /// It moved, within the namespace.
    Moved(u64),
    /// Too much happened at once; what else did is not known.
    Lost,
}

/// Tells which mounts come, go and move in the caller's mount namespace, by their unique ids.
///
/// Needs Linux 6.14 and `CAP_SYS_ADMIN`; [`MountWatch`] needs neither. Remounts are not told. For an event
/// loop, [`AsFd`] gives the file to wait on until it can be read.
#[derive(Debug)]
pub struct MountEvents {
    group: File,
}

impl MountEvents {
    /// Starts to watch; what happened before is not told.
    ///
    /// # Errors
    /// What the kernel says, such as `EINVAL` when it is too old and `EPERM` without the capability.
    pub fn open() -> io::Result<Self> {
        let namespace = File::open("/proc/thread-self/ns/mnt")?;
        let group: OwnedFd = watch_mounts(namespace.as_fd())?;
        Ok(Self { group: group.into() })
    }

    /// Waits for events, at most for `timeout` (`None`: no end); none when it passed.
    ///
    /// # Errors
    /// What the kernel says when it cannot wait or read.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<MountEvent>> {
        if !poll(self.group.as_fd(), libc::POLLIN, timeout)? {
            return Ok(Vec::new());
        }
        let mut buffer = [0; 4096];
        match self.group.read(&mut buffer) {
            Ok(length) => Ok(parse_events(&buffer[..length])),
            // Another thread was faster.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for MountEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

/// Reads `struct fanotify_event_metadata`, each followed by a `struct fanotify_event_info_mnt`.
pub(crate) fn parse_events(mut bytes: &[u8]) -> Vec<MountEvent> {
    const INFO_MNT: u8 = 7;
    let mut events = Vec::new();
    while let (Some(length), Some(mask)) = (u32_at(bytes, 0), u64_at(bytes, 8)) {
        let length = (length as usize).max(size_of::<u64>() * 3);
        let Some(event) = bytes.get(..length) else { break };
        let id = u64_at(event, 32).filter(|_| event[24] == INFO_MNT);
        events.extend(match (mask & (ATTACH | DETACH), id) {
            _ if mask & OVERFLOW != 0 => Some(MountEvent::Lost),
            (ATTACH, Some(id)) => Some(MountEvent::Attached(id)),
            (DETACH, Some(id)) => Some(MountEvent::Detached(id)),
            (both, Some(id)) if both != 0 => Some(MountEvent::Moved(id)),
            _ => None,
        });
        bytes = &bytes[length..];
    }
    events
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}
