//! The directory that a sandbox shares with its guest: made when the first container needs it, gone with the
//! sandbox.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;
use vc_device::{QueueSize, VhostUserFsSpec};
use vc_hypervisor::{Machine, PlugError};
use vc_share::{Bind, ShareName, SharedDir, Virtiofsd, VirtiofsdConfig};
use vc_storage::{SHARE_TAG, SharePlan, WATCHABLE};
use vc_types::{Deadline, DeviceId, HostPath};

use super::copy::blocking;
use crate::error::{Cause, Leftover, OperationError, Step};

/// What serves the directory keeps its requests in this many slots.
const QUEUE_SIZE: u16 = 1024;

/// What a sandbox shares.
#[derive(Debug)]
pub(crate) struct Shares {
    /// Where the directory and its socket go.
    runtime_dir: HostPath,
    /// Started by the first creation that needs it; only other creations that need it wait for that.
    served: OnceCell<Served>,
}

#[derive(Clone, Debug)]
struct Served {
    directory: Arc<Mutex<SharedDir>>,
    server: Arc<Virtiofsd>,
}

impl Served {
    /// Works with the directory. Its calls are short, but a source may be on a file system that is not.
    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut SharedDir) -> T + Send + 'static) -> T {
        let directory = Arc::clone(&self.directory);
        blocking(move || work(&mut lock(&directory))).await
    }
}

fn lock(directory: &Mutex<SharedDir>) -> MutexGuard<'_, SharedDir> {
    directory.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shares {
    pub(crate) fn new(runtime_dir: HostPath) -> Self {
        Self { runtime_dir, served: OnceCell::new() }
    }

    /// Shows a file or directory of the host to the guest.
    pub(crate) async fn bind(
        &self,
        machine: &impl Machine,
        share: &SharePlan,
        deadline: Deadline,
    ) -> Result<(), OperationError> {
        let served = self.served.get_or_try_init(|| self.serve(machine, deadline)).await?;
        let failed = |cause: Cause| OperationError::new(Step::Share(share.source.clone()), cause);
        if let Some(end) = served.server.ended() {
            return Err(failed(Cause::ServerGone(end)));
        }
        let name = share_name(&share.name)?;
        let watchable =
            share.watched.then(|| share_name(&format!("{WATCHABLE}/{}", share.name))).transpose()?;
        let bind = Bind {
            name,
            source: share.source.clone(),
            read_only: share.read_only,
            recursive: share.recursive,
            follow: share.follow,
        };
        let is_directory = share.source.as_path().is_dir();
        let bound = served.with(move |directory| {
            directory.bind(&bind)?;
            watchable.map_or(Ok(()), |place| directory.place(&place, is_directory))
        });
        bound.await.map_err(|error| failed(error.into()))
    }

    /// Takes it away again. What is not there is fine.
    pub(crate) async fn unbind(&self, name: &str) -> Result<(), Cause> {
        let Some(served) = self.served.get() else { return Ok(()) };
        let names = [format!("{WATCHABLE}/{name}"), name.to_owned()];
        for name in names.iter().filter_map(|name| name.parse::<ShareName>().ok()) {
            served.with(move |directory| directory.unbind(&name)).await?;
        }
        Ok(())
    }

    /// Ends the server and removes the directory, once the machine has ended. May be called again.
    pub(crate) async fn end(&self, deadline: Deadline) -> Vec<Leftover> {
        let Some(running) = self.served.get() else { return Vec::new() };
        let mut left = Vec::new();
        if let Err(error) = running.server.stop(deadline).await {
            left.push(Leftover { step: Step::EndServer, cause: error.into() });
        }
        let removed = running.with(SharedDir::remove).await;
        let leftover =
            |error: vc_share::ShareError| Leftover { step: Step::RemoveShares, cause: error.into() };
        left.extend(removed.err().into_iter().flatten().map(leftover));
        left
    }

    /// Makes the directory and has it served to the machine.
    async fn serve(&self, machine: &impl Machine, deadline: Deadline) -> Result<Served, OperationError> {
        let failed = |cause: Cause| OperationError::new(Step::ServeShares, cause);
        let path =
            |name: &str| HostPath::new(self.runtime_dir.as_path().join(name)).expect("below a checked path");
        let root = path("share");
        let directory =
            blocking(move || SharedDir::create(&root)).await.map_err(|error| failed(error.into()))?;
        let (config, socket) = (VirtiofsdConfig::default(), path("fs.sock"));
        // From here on, dropping directory and server takes both away.
        let server = Virtiofsd::start(&config, &directory.served(), &socket, deadline).await;
        let server = server.map_err(|error| failed(error.into()))?;
        let id: DeviceId = "share".parse().expect("a plain name");
        let spec = VhostUserFsSpec {
            id: id.clone(),
            socket,
            tag: SHARE_TAG.parse().expect("short and plain"),
            queue_size: QueueSize::new(QUEUE_SIZE).expect("a power of two"),
        };
        if let Err(error) = machine.plug(&spec.into(), deadline).await {
            if matches!(error, PlugError::Unknown { .. }) {
                // It may be plugged all the same.
                let _ = machine.unplug(&id, deadline).await;
            }
            return Err(failed(error.into()));
        }
        let running = Served { directory: Arc::new(Mutex::new(directory)), server: Arc::new(server) };
        tokio::spawn(tell_end(Arc::downgrade(&running.server)));
        Ok(running)
    }
}

fn share_name(name: &str) -> Result<ShareName, OperationError> {
    name.parse().map_err(|error| OperationError::new(Step::ServeShares, Cause::ShareName(error)))
}

/// Tells the log when the server ends while the sandbox still has it.
async fn tell_end(server: std::sync::Weak<Virtiofsd>) {
    let Some(watched) = server.upgrade() else { return };
    let exited = watched.watch_end();
    drop(watched);
    let end = exited.await;
    // With code 0 it ends when the machine closes the connection.
    let is_expected = end.status.is_some_and(|status| status.success()) || server.strong_count() == 0;
    if !is_expected {
        tracing::warn!(%end, "the shared directory is no longer served");
    }
}
