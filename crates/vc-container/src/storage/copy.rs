//! Files and directories that are copied into the guest, where host and guest share no file system.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vc_agent::{AgentError, CopyFile, FileContent, Volumes};
use vc_storage::CopyPlan;
use vc_types::{Deadline, GuestPath, InvalidPath};

/// More files than this are not copied: whoever needs so many needs a shared file system.
const MOST_ENTRIES: usize = 16 * 1024;

/// Why something is not in the guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyFailed {
    /// It cannot be read.
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
    /// There is too much.
    #[error("{path:?} has more than {MOST_ENTRIES} files; share a file system with the guest instead")]
    TooMany {
        /// What.
        path: PathBuf,
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
    /// It is replaced all the time.
    #[error("{path:?} was changed while it was copied")]
    Changed {
        /// What.
        path: PathBuf,
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
    let source = plan.source.as_path().to_path_buf();
    let entries = blocking(move || list(&source)).await?;
    let is_link = |entry: &&(PathBuf, Metadata)| entry.1.is_symlink();
    for (path, stat) in entries.iter().filter(|entry| !is_link(entry)) {
        send(agent, path, stat, target(plan, path)?, deadline).await?;
    }
    let links = entries.iter().filter(is_link).map(|(path, stat)| Link::read(plan, path, stat));
    let links: Vec<Link<'_>> = links.collect::<Result<_, _>>()?;
    if plan.watched {
        let source = plan.source.as_path().to_path_buf();
        let again = blocking(move || list(&source)).await?;
        if stamps(&again) != stamps(&entries) {
            return Err(CopyFailed::Changed { path: plan.source.as_path().into() });
        }
    }
    for link in links {
        link.send(agent, deadline).await?;
    }
    Ok(())
}

/// What tells whether files have changed, in the order of their names.
fn stamps(entries: &[(PathBuf, Metadata)]) -> BTreeMap<&Path, (u64, u64, i64, i64)> {
    let stamp = |stat: &Metadata| (stat.ino(), stat.len(), stat.mtime(), stat.mtime_nsec());
    entries.iter().map(|(path, stat)| (path.as_path(), stamp(stat))).collect()
}

/// A link, as it was when it was read.
struct Link<'a> {
    path: &'a Path,
    stat: &'a Metadata,
    target: GuestPath,
    leads_to: PathBuf,
}

impl<'a> Link<'a> {
    fn read(plan: &CopyPlan, path: &'a Path, stat: &'a Metadata) -> Result<Self, CopyFailed> {
        let leads_to =
            fs::read_link(path).map_err(|source| CopyFailed::Read { path: path.into(), source })?;
        Ok(Self { path, stat, target: target(plan, path)?, leads_to })
    }

    async fn send(&self, agent: &impl Volumes, deadline: Deadline) -> Result<(), CopyFailed> {
        let path = || self.path.to_path_buf();
        let leads_to =
            self.leads_to.to_str().ok_or_else(|| CopyFailed::Name { path: path(), source: None })?;
        let link = described(self.stat, &self.target, FileContent::Symlink { target: leads_to });
        let sent = agent.copy_file(&link, deadline).await;
        sent.map_err(|source| CopyFailed::Agent { path: path(), source })
    }
}

/// Everything below a path, itself first, directories before what is in them.
fn list(source: &Path) -> Result<Vec<(PathBuf, Metadata)>, CopyFailed> {
    let failed = |path: &Path, source| CopyFailed::Read { path: path.into(), source };
    // Only the top may be a link: it is what was asked for.
    let mut found =
        vec![(source.to_path_buf(), fs::metadata(source).map_err(|error| failed(source, error))?)];
    let mut next = 0;
    while let Some((path, stat)) = found.get(next).cloned() {
        next += 1;
        if !stat.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&path).map_err(|error| failed(&path, error))? {
            let entry = entry.map_err(|error| failed(&path, error))?;
            let stat = entry.metadata().map_err(|error| failed(&entry.path(), error))?;
            found.push((entry.path(), stat));
        }
        if found.len() > MOST_ENTRIES {
            return Err(CopyFailed::TooMany { path: source.into() });
        }
    }
    Ok(found)
}

/// Where a file goes.
fn target(plan: &CopyPlan, path: &Path) -> Result<GuestPath, CopyFailed> {
    let below = path.strip_prefix(plan.source.as_path()).unwrap_or(Path::new(""));
    let mut target = plan.target.clone();
    for name in below {
        let name = name.to_str().ok_or_else(|| CopyFailed::Name { path: path.into(), source: None })?;
        target =
            target.join(name).map_err(|error| CopyFailed::Name { path: path.into(), source: Some(error) })?;
    }
    Ok(target)
}

async fn send(
    agent: &impl Volumes,
    path: &Path,
    stat: &Metadata,
    target: GuestPath,
    deadline: Deadline,
) -> Result<(), CopyFailed> {
    let agent_failed = |source| CopyFailed::Agent { path: path.into(), source };
    let read_failed = |source| CopyFailed::Read { path: path.into(), source };
    if stat.is_dir() {
        return agent
            .copy_file(&described(stat, &target, FileContent::Directory), deadline)
            .await
            .map_err(agent_failed);
    }
    if !stat.is_file() {
        tracing::debug!(?path, "neither a file, a directory nor a link; it is not copied");
        return Ok(());
    }
    let file = Arc::new(File::open(path).map_err(read_failed)?);
    let (size, mut offset) = (stat.len(), 0);
    loop {
        let file = Arc::clone(&file);
        let most = usize::try_from(size - offset).unwrap_or(usize::MAX).min(FileContent::MAX_PIECE);
        let data = blocking(move || read_piece(&file, offset, most)).await.map_err(read_failed)?;
        if data.len() < most {
            return Err(CopyFailed::Short { path: path.into() });
        }
        let content = FileContent::Regular { size, offset, data: &data };
        agent.copy_file(&described(stat, &target, content), deadline).await.map_err(agent_failed)?;
        offset += data.len() as u64;
        if offset >= size {
            return Ok(());
        }
    }
}

fn described<'a>(stat: &Metadata, path: &GuestPath, content: FileContent<'a>) -> CopyFile<'a> {
    CopyFile {
        path: path.clone(),
        content,
        mode: stat.mode() & 0o7777,
        directory_mode: 0o755,
        uid: stat.uid(),
        gid: stat.gid(),
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
