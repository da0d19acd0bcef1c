//! The record on the disk, for a sandbox that another process may have to take over.
//!
//! What a child task is about to do, or has done, it writes down here before it tells anybody: what is
//! published is never ahead of the disk. Without a state directory nothing is written.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Semaphore;

use crate::error::Cause;
use crate::metrics::Metrics;
use crate::record::SandboxRecord;
use crate::store::{Store, StoreError};

/// A handle to the record. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Option<Arc<Book>>);

#[derive(Debug)]
struct Book {
    store: Arc<Store>,
    /// Its one permit is with whoever writes.
    turn: Semaphore,
    /// What is on the disk.
    record: Mutex<SandboxRecord>,
    metrics: Metrics,
}

impl Ledger {
    /// Keeps `record`, which `store` has already, and counts its writes in `metrics`.
    pub(crate) fn new(store: Store, record: SandboxRecord, metrics: Metrics) -> Self {
        let (store, record) = (Arc::new(store), Mutex::new(record));
        Self(Some(Arc::new(Book { store, turn: Semaphore::new(1), record, metrics })))
    }

    /// Makes a change, once it is on the disk.
    pub(crate) async fn write(&self, change: impl FnOnce(&mut SandboxRecord) + Send) -> Result<(), Cause> {
        let Some(book) = &self.0 else { return Ok(()) };
        let _turn = book.turn.acquire().await.expect("nobody closes it");
        let mut new = book.record().clone();
        change(&mut new);
        if new == *book.record() {
            return Ok(());
        }
        let store = book.store.clone();
        let write = async {
            let written = tokio::task::spawn_blocking(move || store.write(&new).map(|()| new)).await;
            // A runtime that ends takes its blocking tasks along.
            Ok::<_, Cause>(written.map_err(|_| Cause::SandboxGone)??)
        };
        let written = book.metrics.step("write record", tracing::debug_span!("write record"), write).await?;
        *book.record() = written;
        Ok(())
    }

    /// Whether anything is written at all.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Removes the record and its directory: nothing of the sandbox is left.
    pub(crate) fn remove(&self) -> Result<(), StoreError> {
        self.0.as_ref().map_or(Ok(()), |book| book.store.remove())
    }
}

impl Book {
    fn record(&self) -> MutexGuard<'_, SandboxRecord> {
        self.record.lock().expect("nothing panics while it holds the record")
    }
}
