//! Copies that follow their source, where host and guest share no file system: the kubelet replaces the files of a
//! volume all at once, by a link to a new directory with all of them (its `AtomicWriter`).

use std::fmt;
use std::sync::Arc;

use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use tokio::task::AbortHandle;
use vc_agent::Volumes;
use vc_storage::CopyPlan;
use vc_types::{Deadline, HostPath};

use super::copy::{CopyFailed, blocking, copy};
use crate::timing::Timing;

/// The link that the kubelet replaces.
const DATA: &str = "..data";

/// How often a copy is begun anew because its source has changed meanwhile.
const ATTEMPTS: usize = 5;

/// Room for some events; more than that many wait in the kernel.
const BUFFER: usize = 4096;

/// What is told of changes from when this was made on.
pub(crate) struct Watch(inotify::EventStream<Vec<u8>>);

impl Watch {
    pub(crate) async fn of(source: &HostPath) -> Result<Self, CopyFailed> {
        let failed = |error| CopyFailed::Watch { path: source.as_path().into(), source: error };
        let path = source.clone();
        let watching = blocking(move || {
            let inotify = Inotify::init()?;
            // What is made there, or renamed to there, is told; so is the end of the directory.
            inotify.watches().add(path.as_path(), WatchMask::MOVED_TO | WatchMask::CREATE)?;
            Ok::<_, std::io::Error>(inotify)
        });
        let inotify = watching.await.map_err(failed)?;
        inotify.into_event_stream(vec![0; BUFFER]).map(Self).map_err(failed)
    }

    /// Resolves when the files were replaced; false when they never will be again.
    async fn replaced(&mut self) -> bool {
        while let Some(Ok(event)) = self.0.next().await {
            // An overflow has no name: something may have been missed.
            if event.name.is_none_or(|name| name == DATA) {
                return !event.mask.contains(inotify::EventMask::IGNORED);
            }
        }
        false
    }
}

/// A copy that follows its source until this is dropped.
pub(crate) struct Following {
    source: HostPath,
    task: AbortHandle,
}

impl Following {
    /// Copies again whenever `watch` tells of new files; `is_behind` if it may have missed some.
    pub(crate) fn start<A: Volumes + 'static>(
        agent: Arc<A>,
        plan: CopyPlan,
        mut watch: Watch,
        timing: Timing,
        is_behind: bool,
    ) -> Self {
        let source = plan.source.clone();
        let task = tokio::spawn(async move {
            let mut is_behind = is_behind;
            loop {
                if is_behind && let Err(error) = settled_copy(&*agent, &plan, || timing.request()).await {
                    tracing::warn!(source = %plan.source, %error, "the guest has the files of before");
                }
                is_behind = watch.replaced().await;
                if !is_behind {
                    break;
                }
            }
        });
        Self { source, task: task.abort_handle() }
    }

    pub(crate) fn source(&self) -> &HostPath {
        &self.source
    }
}

/// Copies, and begins anew when the source changes meanwhile.
pub(crate) async fn settled_copy(
    agent: &impl Volumes,
    plan: &CopyPlan,
    deadline: impl Fn() -> Deadline,
) -> Result<(), CopyFailed> {
    for _ in 1..ATTEMPTS {
        match copy(agent, plan, deadline()).await {
            Err(error) if error.is_change() => {}
            result => return result,
        }
    }
    copy(agent, plan, deadline()).await
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Following").field(&self.source).finish()
    }
}
