//! Hearing that an agent serves, instead of asking until it answers.
//!
//! `vhost-device-vsock` 0.3 sometimes delivers nothing any more, for as long as it runs, when a host
//! connects just while the guest's driver starts. So nobody asks before the guest has spoken: an agent
//! that is told `agent.ready_vport=1027` on its kernel's command line opens one connection to that port
//! of the host once it serves, which arrives at the Unix socket `<socket>_1027`.

use std::ffi::OsString;
use std::fs::Permissions;
use std::io::Result;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;
use vc_types::VsockPort;

/// Where an agent announces itself. Dropping it removes the socket.
pub(super) struct Announcement {
    listener: UnixListener,
    path: PathBuf,
}

impl Announcement {
    /// Listens beside the vsock device's own `socket`.
    pub(super) fn listen(socket: &Path) -> Result<Self> {
        let mut path = OsString::from(socket);
        path.push(format!("_{}", VsockPort::READY.0));
        let path = PathBuf::from(path);
        let announcement = Self { listener: UnixListener::bind(&path)?, path };
        // The daemon may run as a user without rights. Who else comes here, the directory decides.
        std::fs::set_permissions(&announcement.path, Permissions::from_mode(0o666))?;
        Ok(announcement)
    }

    /// Resolves when the agent has announced itself.
    pub(super) async fn heard(&self) {
        // An error here is one of this host, and the attempt to connect that follows tells it better.
        let _ = self.listener.accept().await;
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // Whoever owns the directory reports a file that stays.
        let _ = std::fs::remove_file(&self.path);
    }
}
