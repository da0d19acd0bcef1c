//! RemoveContainer: kill, unmount, remove; in that order, and again after a failure.

use super::{Container, Stage};
use crate::error::CallError;
use crate::executor::state_directory;
use crate::guest::Guest;
use crate::log::chain;
use crate::mount::unmount_below;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;
use vc_types::{ContainerId, Deadline};

/// How long killed processes may take to go when the host does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// Removes the container called `id`. May be called again after a failure.
///
/// `timeout` bounds the wait for killed processes, in seconds; 0 means 30.
pub(crate) async fn remove(guest: &Guest, id: &str, timeout: u32) -> Result<(), CallError> {
    let container = guest.container(id)?;
    let wait = if timeout == 0 { DEFAULT_WAIT } else { Duration::from_secs(timeout.into()) };
    *container.stage() = Stage::Removing;
    container.kill(Deadline::after(wait)).await?;
    let storages = guest.storages().clone();
    let removed = tokio::task::spawn_blocking({
        let container = std::sync::Arc::clone(&container);
        move || {
            let mut mount_points = container.mount_points.lock().unwrap_or_else(PoisonError::into_inner);
            let errors = storages.release(std::mem::take(&mut *mount_points));
            container.clear()?;
            Ok::<_, CallError>(errors)
        }
    });
    let errors = removed.await.map_err(|_| CallError::Panicked)??;
    container.hooks.stopped(guest.reaper()).await;
    guest.forget(&container.id);
    let mut errors = errors.into_iter();
    let first = errors.next();
    for other in errors {
        tracing::warn!(container = %container.id, error = chain(&other), "a storage stays");
    }
    first.map_or(Ok(()), |error| Err(error.into()))
}

impl Container {
    async fn kill(&self, deadline: Deadline) -> Result<(), CallError> {
        self.cgroup.kill_all()?;
        // No exec begins any more; those on their way must not outlive the container.
        let launched = tokio::time::timeout(deadline.remaining(), self.launching.write()).await;
        drop(launched.map_err(|_| CallError::Late("an exec of the container"))?);
        self.cgroup.kill_all()?;
        let processes = self.processes().all();
        for process in processes {
            let ended = tokio::time::timeout(deadline.remaining(), process.wait()).await;
            ended.map_err(|_| CallError::Late("a killed process"))?;
        }
        Ok(self.cgroup.emptied(deadline).await?)
    }

    fn clear(&self) -> Result<(), CallError> {
        self.cgroup.remove()?;
        remove_directories(&self.id, &self.bundle)
    }
}

/// Removes the agent's and libcontainer's directories of a container, and first what is mounted there.
pub(super) fn remove_directories(id: &ContainerId, bundle: &Path) -> Result<(), CallError> {
    for directory in [&state_directory(id.as_str()), bundle] {
        unmount_below(directory).map_err(|(_, errno)| CallError::System("unmount what is left", errno))?;
        match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(CallError::File(directory.into(), error));
            }
            _ => {}
        }
    }
    Ok(())
}
