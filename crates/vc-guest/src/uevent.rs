//! The kernel's news of devices, so that nobody has to poll for them.

use crate::sys::watch_descriptor;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// The multicast group of the kernel's own events; udev's group is 2.
const KERNEL_GROUP: u32 = 1;

/// The kinds of devices that somebody may wait for.
const SUBSYSTEMS: [&[u8]; 6] = [b"block", b"cpu", b"memory", b"net", b"scsi", b"virtio"];

/// Tells when devices have come, gone or changed.
///
/// Subscribe first, then look: a device that comes in between makes the subscription fire.
#[derive(Clone, Debug)]
pub struct DeviceEvents(watch::Receiver<u64>);

impl DeviceEvents {
    /// Starts to listen to the kernel (netlink(7), `NETLINK_KOBJECT_UEVENT`).
    ///
    /// # Errors
    /// The error of socket(2) or bind(2).
    pub fn listen() -> std::io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        let socket = watch_descriptor(socket, Interest::READABLE)?;
        let (sender, receiver) = watch::channel(0);
        tokio::spawn(forward(socket, sender));
        Ok(Self(receiver))
    }

    /// Events from elsewhere: `receiver` changes whenever devices may have changed.
    pub fn from_receiver(receiver: watch::Receiver<u64>) -> Self {
        Self(receiver)
    }

    /// Forgets the events until now.
    pub fn mark_seen(&mut self) {
        self.0.mark_unchanged();
    }

    /// Returns once a device came, went or changed since the last call; never when nobody listens.
    ///
    /// # Cancel safety
    /// An event that comes while nobody waits is kept for the next call.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

async fn forward(socket: AsyncFd<OwnedFd>, sender: watch::Sender<u64>) {
    let mut buffer = [0; 8192];
    loop {
        let received = socket.async_io(Interest::READABLE, |socket| {
            Ok(recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?)
        });
        let news = match received.await {
            Ok(length) => is_news(&buffer[..length]),
            // Events were lost: somebody may wait for one of them.
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => true,
            Err(error) => {
                tracing::error!(%error, "no more device events");
                return;
            }
        };
        if news {
            sender.send_modify(|count| *count += 1);
        }
    }
}

/// An event is `ACTION@DEVPATH` and then `KEY=value`, each ended by NUL.
fn is_news(message: &[u8]) -> bool {
    let subsystem = message.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"SUBSYSTEM="));
    subsystem.is_some_and(|subsystem| SUBSYSTEMS.contains(&subsystem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_that_are_waited_for_are_news() {
        let event = |subsystem: &str| {
            format!("add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM={subsystem}\0SEQNUM=7\0")
        };
        assert!(is_news(event("block").as_bytes()));
        assert!(!is_news(event("blocking").as_bytes()));
        assert!(is_news(event("virtio").as_bytes()));
        assert!(!is_news(event("pci").as_bytes()));
        assert!(!is_news(b""));
    }
}
