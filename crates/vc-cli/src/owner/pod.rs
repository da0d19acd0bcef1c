//! A machine, and who is in it besides the container that it was made for.

use std::sync::Arc;

use tokio::sync::watch;
use vc_container::Sandbox;

pub(super) struct Pod {
    pub(super) sandbox: Sandbox,
    /// Whether directories of the host may be shared with the machine.
    pub(super) shared_fs: bool,
    members: watch::Sender<usize>,
}

/// Held as long as a member is there.
pub(super) struct Presence(Arc<Pod>);

impl Pod {
    pub(super) fn new(sandbox: Sandbox, shared_fs: bool) -> Self {
        Self { sandbox, shared_fs, members: watch::channel(0).0 }
    }

    /// Counts another member.
    pub(super) fn enter(self: &Arc<Self>) -> Presence {
        self.members.send_modify(|members| *members += 1);
        Presence(self.clone())
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
