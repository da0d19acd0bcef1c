//! Files and directories that are copied into the guest, where host and guest share no file system.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use vc_agent::{AgentError, CopyFile, FileContent, Volumes};
use vc_share::{Source, SourceEntry, SourceError, SourceKind};
use vc_storage::CopyPlan;
use vc_types::{Deadline, GuestPath, InvalidPath};

/// More files than this are not copied: whoever needs so many needs a shared file system.
const MOST_ENTRIES: usize = 16 * 1024;

/// Why something is not in the guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyFailed {
    /// It cannot be read, or not as it was found.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A part of a file cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// What.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The guest cannot have it by its name.
    #[error("{path:?} has a name that the agent protocol cannot carry")]
    Name {
        /// What.
        path: PathBuf,
        /// Why.
        source: Option<InvalidPath>,
    },
    /// It became shorter.
    #[error("{path:?} became shorter while it was copied")]
    Short {
        /// What.
        path: PathBuf,
    },
    /// It cannot be watched.
    #[error("cannot watch {path:?} for changes")]
    Watch {
        /// What.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The guest did not take it.
    #[error("the guest did not take {path:?}")]
    Agent {
        /// What.
        path: PathBuf,
        /// Why not.
        source: AgentError,
    },
}

impl CopyFailed {
    /// Whether a new attempt may find the source at rest.
    pub(super) fn is_change(&self) -> bool {
        matches!(self, Self::Source(SourceError::Changed { .. }))
    }
}

/// Copies a file, or a directory with all below it. Links stay links; sockets, FIFOs and devices stay behind.
/// Never more than one piece of a file is in memory.
///
/// Links come last. Those of what is watched come only if all that they lead to is as it was when they were found:
/// whoever sees a new link in the guest finds there what it led to on the host.
pub(crate) async fn copy(
    agent: &impl Volumes,
    plan: &CopyPlan,
    deadline: Deadline,
) -> Result<(), CopyFailed> {
    let path = plan.source.clone();
    let (source, entries) = blocking(move || {
        let source = Source::open(&path)?;
        let entries = source.list(MOST_ENTRIES)?;
        Ok::<_, SourceError>((Arc::new(source), entries))
    })
    .await?;
    let copying = Copying { agent, source, target: &plan.target, deadline };
    let is_link = |entry: &&SourceEntry| matches!(entry.kind, SourceKind::Link { .. });
    for entry in entries.iter().filter(|entry| !is_link(entry)) {
        copying.send(entry).await?;
    }
    if plan.watched {
        let source = Arc::clone(&copying.source);
        if blocking(move || source.list(MOST_ENTRIES)).await? != entries {
            return Err(SourceError::Changed { path: plan.source.as_path().into() }.into());
        }
    }
    for link in entries.iter().filter(is_link) {
        copying.send(link).await?;
    }
    Ok(())
}

/// A copy under way.
struct Copying<'a, A> {
    agent: &'a A,
    source: Arc<Source>,
    target: &'a GuestPath,
    deadline: Deadline,
}

impl<A: Volumes> Copying<'_, A> {
    async fn send(&self, entry: &SourceEntry) -> Result<(), CopyFailed> {
        let path = || self.source.path_of(entry);
        match &entry.kind {
            SourceKind::Directory => self.tell(entry, FileContent::Directory).await,
            SourceKind::File { size } => self.send_file(entry, *size).await,
            SourceKind::Link { target } => {
                let target =
                    target.to_str().ok_or_else(|| CopyFailed::Name { path: path(), source: None })?;
                self.tell(entry, FileContent::Symlink { target }).await
            }
            SourceKind::Special => {
                tracing::debug!(path = ?path(), "neither a file, a directory nor a link; it is not copied");
                Ok(())
            }
        }
    }

    async fn send_file(&self, entry: &SourceEntry, size: u64) -> Result<(), CopyFailed> {
        let path = || self.source.path_of(entry);
        let (source, listed) = (Arc::clone(&self.source), entry.clone());
        let file = Arc::new(blocking(move || source.file(&listed)).await?);
        let mut offset = 0;
        loop {
            let file = Arc::clone(&file);
            let most = usize::try_from(size - offset).unwrap_or(usize::MAX).min(FileContent::MAX_PIECE);
            let data = blocking(move || read_piece(&file, offset, most)).await;
            let data = data.map_err(|source| CopyFailed::Read { path: path(), source })?;
            if data.len() < most {
                return Err(CopyFailed::Short { path: path() });
            }
            self.tell(entry, FileContent::Regular { size, offset, data: &data }).await?;
            offset += data.len() as u64;
            if offset >= size {
                return Ok(());
            }
        }
    }

    async fn tell(&self, entry: &SourceEntry, content: FileContent<'_>) -> Result<(), CopyFailed> {
        let path = || self.source.path_of(entry);
        let mut target = self.target.clone();
        for name in &entry.below {
            let name = name.to_str().ok_or_else(|| CopyFailed::Name { path: path(), source: None })?;
            let joined = target.join(name);
            target = joined.map_err(|error| CopyFailed::Name { path: path(), source: Some(error) })?;
        }
        let file = CopyFile {
            path: target,
            content,
            mode: entry.mode,
            directory_mode: 0o755,
            uid: entry.uid,
            gid: entry.gid,
        };
        let told = self.agent.copy_file(&file, self.deadline).await;
        told.map_err(|source| CopyFailed::Agent { path: path(), source })
    }
}

fn read_piece(file: &File, offset: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut data = vec![0; most];
    let mut filled = 0;
    while filled < most {
        match file.read_at(&mut data[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    data.truncate(filled);
    Ok(data)
}

/// Disks and network file systems may make a call wait.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

#[cfg(test)]
mod tests;
