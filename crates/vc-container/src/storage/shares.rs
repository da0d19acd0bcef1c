//! The directory that a sandbox shares with its guest: made when the first container needs it, gone with the
//! sandbox.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use tokio::task::AbortHandle;
use vc_device::{QueueSize, VhostUserFsSpec};
use vc_hypervisor::{Machine, PlugError};
use vc_share::{Bind, NydusApi, Server, ServerConfig, ServerKind, ShareError, ShareName, SharedDir};
use vc_storage::{SHARE_TAG, ServicePlan, SharePlan, SharedFs, StoragePlan, WATCHABLE};
use vc_types::{ContainerId, Deadline, DeviceId, HostPath, ProcessIdentity};

use super::copy::blocking;
use crate::error::{Cause, Leftover, OperationError, Step};
use crate::ledger::Ledger;
use crate::record::SandboxRecord;

/// What serves the directory keeps its requests in this many slots.
const QUEUE_SIZE: u16 = 1024;

/// How a sandbox shares directories with its guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sharing {
    /// The way. Containers are planned for the same.
    pub shared_fs: SharedFs,
    /// The program that serves what is shared; looked for if none is given.
    pub program: Option<PathBuf>,
}

impl Default for Sharing {
    fn default() -> Self {
        Self { shared_fs: SharedFs::VirtioFs, program: None }
    }
}

impl Sharing {
    fn kind(&self) -> ServerKind {
        match self.shared_fs {
            SharedFs::Nydus => ServerKind::Nydusd,
            SharedFs::VirtioFs | SharedFs::None => ServerKind::Virtiofsd,
        }
    }
}

/// What a sandbox shares.
#[derive(Debug)]
pub(crate) struct Shares {
    /// Where the directory goes.
    root: HostPath,
    sharing: Sharing,
    /// Where the server is written down, which then outlives this process.
    ledger: Ledger,
    /// Started by the first creation that needs it; only other creations that need it wait for that.
    served: OnceCell<Served>,
    /// How many containers had something shared.
    sharers: AtomicU32,
}

#[derive(Clone, Debug)]
struct Served {
    directory: Arc<Mutex<SharedDir>>,
    server: Arc<Server>,
    /// Tells when the server ends by itself.
    teller: Option<AbortHandle>,
}

impl Served {
    fn nydus(&self) -> Result<&NydusApi, Cause> {
        match self.server.ended() {
            Some(end) => Err(Cause::ServerGone(end)),
            None => self
                .server
                .nydus()
                .ok_or(Cause::OtherSharing { planned: SharedFs::Nydus, has: SharedFs::VirtioFs }),
        }
    }

    /// Works with the directory. Its calls are short, but a source may be on a file system that is not.
    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut SharedDir) -> T + Send + 'static) -> T {
        let directory = Arc::clone(&self.directory);
        blocking(move || work(&mut lock(&directory))).await
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shares {
    pub(crate) fn new(runtime_dir: &HostPath, sharing: Sharing, ledger: Ledger) -> Self {
        let (served, sharers) = (OnceCell::new(), AtomicU32::default());
        Self { root: root(runtime_dir), sharing, ledger, served, sharers }
    }

    /// Whether what is planned for `shared_fs` can be had.
    pub(crate) fn check(&self, planned: SharedFs) -> Result<(), Cause> {
        let has = self.sharing.shared_fs;
        let fits = planned == has || planned == SharedFs::None;
        if fits { Ok(()) } else { Err(Cause::OtherSharing { planned, has }) }
    }

    /// Goes on with what another owner has made, if the machine still has it; what is of no use is removed.
    pub(crate) async fn resume(&self, left: LeftShares, is_plugged: bool, deadline: Deadline) {
        let failed = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, "a shared directory cannot be taken over");
        };
        let Some(server) = left.server.filter(|_| is_plugged) else {
            clean_up(&self.root, &self.sharing, left, deadline)
                .await
                .iter()
                .for_each(|left| failed(&left.cause));
            return;
        };
        self.sharers.store(left.sharers, Ordering::Relaxed);
        let root = self.root.clone();
        let directory = blocking(move || SharedDir::adopt(&root, left.names)).await;
        match (directory, Server::adopt(self.sharing.kind(), server, &socket(&self.root))) {
            (Ok(Some(directory)), Ok(server)) => {
                let served = Served {
                    directory: Arc::new(Mutex::new(directory)),
                    server: Arc::new(server),
                    teller: None,
                };
                // Nobody else has it yet.
                let _ = self.served.set(served);
            }
            (Err(error), _) => failed(&error),
            (_, Err(error)) => failed(&error),
            (Ok(None), Ok(_)) => failed(&"it is gone"),
        }
    }

    /// The device of the machine by which the guest has the directory, once it is served.
    pub(crate) fn device() -> DeviceId {
        "share".parse().expect("a plain name")
    }

    pub(crate) fn is_served(&self) -> bool {
        self.served.get().is_some()
    }

    /// Leaves everything as it is when this value is dropped.
    pub(crate) fn let_go(&self) {
        if let Some(served) = self.served.get() {
            served.server.let_go();
            lock(&served.directory).let_go();
        }
    }

    /// Makes the directory and has it served, if it is not.
    pub(crate) async fn start(
        &self,
        machine: &impl Machine,
        deadline: Deadline,
    ) -> Result<(), OperationError> {
        self.served.get_or_try_init(|| self.serve(machine, deadline)).await.map(drop)
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
        for name in names_of(name).iter().filter_map(|name| name.parse::<ShareName>().ok()) {
            served.with(move |directory| directory.unbind(&name)).await?;
        }
        Ok(())
    }

    /// Gives what a plan shares names that the guest has not seen yet.
    pub(crate) fn number(&self, plan: &mut StoragePlan) {
        if !plan.shares.is_empty() {
            plan.number_shares(self.sharers.fetch_add(1, Ordering::Relaxed));
        }
    }

    /// How many containers had something shared, to be written down.
    pub(crate) fn sharers(&self) -> u32 {
        self.sharers.load(Ordering::Relaxed)
    }

    /// Has the server do what a plan asks of it.
    pub(crate) async fn mount(
        &self,
        machine: &impl Machine,
        (image, service): ((&ContainerId, u32), &ServicePlan),
        deadline: Deadline,
    ) -> Result<(), OperationError> {
        let served = self.served.get_or_try_init(|| self.serve(machine, deadline)).await?;
        let ServicePlan::Nydusd { source, config, .. } = service;
        let mounted = async { Ok(served.nydus()?.mount_rafs(image, source, config, deadline).await?) };
        mounted.await.map_err(|cause: Cause| OperationError::new(Step::MountImage(source.clone()), cause))
    }

    /// Has the server forget the image of a container. That there is none is fine.
    pub(crate) async fn unmount(&self, image: (&ContainerId, u32), deadline: Deadline) -> Result<(), Cause> {
        match self.served.get().map(Served::nydus) {
            Some(Ok(nydus)) => Ok(nydus.unmount_rafs(image, deadline).await?),
            // What one had mounted that has ended is gone with it.
            _ => Ok(()),
        }
    }

    /// Ends the server and removes the directory, once the machine has ended. May be called again.
    pub(crate) async fn end(&self, deadline: Deadline) -> Vec<Leftover> {
        let Some(running) = self.served.get() else { return Vec::new() };
        let mut left = Vec::new();
        if let Some(teller) = &running.teller {
            teller.abort();
        }
        if let Err(error) = running.server.stop(deadline).await {
            left.push(Leftover { step: Step::EndServer, cause: error.into() });
        }
        let removed = running.with(SharedDir::remove).await;
        left.extend(removed.err().into_iter().flatten().map(leftover));
        left
    }

    /// Makes the directory and has it served to the machine.
    async fn serve(&self, machine: &impl Machine, deadline: Deadline) -> Result<Served, OperationError> {
        let failed = |cause: Cause| OperationError::new(Step::ServeShares, cause);
        let root = self.root.clone();
        let directory =
            blocking(move || SharedDir::create(&root)).await.map_err(|error| failed(error.into()))?;
        let config = ServerConfig {
            program: self.sharing.program.clone(),
            die_with_parent: !self.ledger.is_kept(),
            ..ServerConfig::new(self.sharing.kind())
        };
        let socket = socket(&self.root);
        // From here on, dropping directory and server takes both away.
        let server = Server::start(&config, &directory.served(), &socket, deadline).await;
        let server = server.map_err(|error| failed(error.into()))?;
        // Before it is connected: until then, the next owner finds it by its socket.
        let noted = self.ledger.write(|record| record.share_server = server.identity()).await;
        noted.map_err(|cause| OperationError::new(Step::Record, cause))?;
        let id = Self::device();
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
        let server = Arc::new(server);
        let teller = Some(tokio::spawn(tell_end(Arc::downgrade(&server))).abort_handle());
        Ok(Served { directory: Arc::new(Mutex::new(directory)), server, teller })
    }
}

/// What an owner that has died may have left of its shared directory.
#[derive(Debug)]
pub(crate) struct LeftShares {
    server: Option<ProcessIdentity>,
    names: Vec<ShareName>,
    sharers: u32,
}

impl LeftShares {
    pub(crate) fn of(record: &SandboxRecord) -> Self {
        let names = record.containers.iter().flat_map(|container| &container.shares);
        let names = names.flat_map(|name| names_of(name)).filter_map(|name| name.parse().ok());
        Self { server: record.share_server, names: names.collect(), sharers: record.sharers }
    }
}

/// Ends the server and takes the directory away.
pub(crate) async fn clean_up_shares(
    runtime_dir: &HostPath,
    sharing: &Sharing,
    left: LeftShares,
    deadline: Deadline,
) -> Vec<Leftover> {
    clean_up(&root(runtime_dir), sharing, left, deadline).await
}

async fn clean_up(
    root: &HostPath,
    sharing: &Sharing,
    shares: LeftShares,
    deadline: Deadline,
) -> Vec<Leftover> {
    let mut left = Vec::new();
    let (socket, kind) = (socket(root), sharing.kind());
    let ended = match shares.server.map(|server| Server::adopt(kind, server, &socket)) {
        None => {
            Server::end_unknown(kind, &socket, deadline).await;
            Ok(())
        }
        Some(Ok(server)) => server.stop(deadline).await.map(drop).map_err(Cause::from),
        Some(Err(error)) => Err(error.into()),
    };
    left.extend(ended.err().map(|cause| Leftover { step: Step::EndServer, cause }));
    let (root, names) = (root.clone(), shares.names);
    let removed = blocking(move || match SharedDir::adopt(&root, names) {
        Ok(Some(mut directory)) => directory.remove(),
        Ok(None) => Ok(()),
        Err(error) => Err(vec![error]),
    });
    left.extend(removed.await.err().into_iter().flatten().map(leftover));
    left
}

fn leftover(error: ShareError) -> Leftover {
    Leftover { step: Step::RemoveShares, cause: error.into() }
}

fn root(runtime_dir: &HostPath) -> HostPath {
    below(runtime_dir, "share")
}

fn socket(root: &HostPath) -> HostPath {
    below(root, "fs.sock")
}

fn below(directory: &HostPath, name: &str) -> HostPath {
    HostPath::new(directory.as_path().join(name)).expect("below a checked path")
}

/// What a share has in the directory, the last first.
fn names_of(name: &str) -> [String; 2] {
    [format!("{WATCHABLE}/{name}"), name.to_owned()]
}

fn share_name(name: &str) -> Result<ShareName, OperationError> {
    name.parse().map_err(|error| OperationError::new(Step::ServeShares, Cause::ShareName(error)))
}

/// Tells the log when the server ends while the sandbox still has it.
async fn tell_end(server: std::sync::Weak<Server>) {
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
