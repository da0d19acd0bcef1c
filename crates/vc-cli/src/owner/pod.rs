//! A machine, and who is in it besides the container that it was made for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use vc_container::Sandbox;
use vc_storage::SharedFs;
use vc_types::ContainerId;

/// How long a container may take to be ended and removed.
const GONE: Duration = Duration::from_secs(30);

pub(super) struct Pod {
    pub(super) sandbox: Sandbox,
    /// How directories of the host are shared with the machine.
    pub(super) shared_fs: SharedFs,
    members: watch::Sender<usize>,
}

/// Held as long as a member is there.
pub(super) struct Presence(Arc<Pod>);

impl Pod {
    pub(super) fn new(sandbox: Sandbox, shared_fs: SharedFs) -> Self {
        Self { sandbox, shared_fs, members: watch::channel(0).0 }
    }

    /// Counts another member.
    pub(super) fn enter(self: &Arc<Self>) -> Presence {
        self.members.send_modify(|members| *members += 1);
        Presence(self.clone())
    }

    /// Waits until the machine is rid of a member of that name. One whose process was killed may be asked for again before it
    /// is gone. Cancel safe.
    pub(super) async fn without(&self, id: &ContainerId) {
        let mut sandbox = self.sandbox.clone();
        let gone = async { while sandbox.container(id).is_some() && sandbox.status_changed().await {} };
        // If it stays, the creation is refused, and says why.
        let _ = tokio::time::timeout(GONE, gone).await;
    }

    /// Waits until there is no member. Cancel safe.
    pub(super) async fn alone(&self) {
        // Its sender is here.
        let _ = self.members.subscribe().wait_for(|members| *members == 0).await;
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.members.send_modify(|members| *members -= 1);
    }
}
