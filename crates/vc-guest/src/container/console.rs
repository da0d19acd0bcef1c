//! The terminal of a process: libcontainer opens it within the container and sends it here.

use crate::error::CallError;
use crate::sys;
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::Interest;
use tokio::net::UnixListener;
use vc_types::Deadline;

/// A socket that waits for one terminal; gone when dropped.
#[derive(Debug)]
pub(super) struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    /// Makes the socket, under a name of its own.
    pub(super) fn listen(directory: &Path) -> Result<Self, CallError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = directory.join(format!("console-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let failed = |error| CallError::File(path.clone(), error);
        let listener = UnixListener::bind(&path).map_err(failed)?;
        Ok(Self { path, listener })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The terminal's controlling side.
    pub(super) async fn terminal(&self, deadline: Deadline) -> Result<OwnedFd, CallError> {
        let received = tokio::time::timeout(deadline.remaining(), self.receive()).await;
        received
            .map_err(|_| CallError::Late("setting up the terminal"))?
            .map_err(|error| CallError::Stream("receive the terminal", error))
    }

    async fn receive(&self) -> std::io::Result<OwnedFd> {
        let (socket, _) = self.listener.accept().await?;
        let receive = || sys::receive_descriptors(socket.as_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT);
        let received = socket.async_io(Interest::READABLE, || Ok(receive()?)).await?;
        received.into_iter().next().ok_or_else(|| Errno::ENOMSG.into())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = ?self.path, %error, "cannot remove");
        }
    }
}
