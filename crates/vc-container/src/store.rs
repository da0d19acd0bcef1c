//! The file that a sandbox's record is kept in: one owner, and at any moment the old record or the new one.
//!
//! `record.json` is replaced by rename(2) of a file that was written and synced beside it, and the
//! directory is synced after that: whoever is killed between two system calls, or meets a full disk,
//! leaves the old record or the new one. `lock` is held with flock(2) by the owner, and by nobody once that
//! has died.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use vc_types::HostPath;

use crate::record::{InvalidRecord, SandboxRecord};

const RECORD: &str = "record.json";
const NEW_RECORD: &str = "record.json.new";
const LOCK: &str = "lock";

/// The longest record that is read. One of a thousand containers is far shorter.
const LONGEST: u64 = 256 << 20;

/// Why there is no record, or it was not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process owns the sandbox.
    #[error("{0} is in use: the owner of the sandbox lives")]
    Owned(HostPath),
    /// There is no record.
    #[error("there is no record of a sandbox in {0}")]
    NoRecord(HostPath),
    /// The record cannot be used.
    #[error("the record in {dir} cannot be used")]
    Invalid {
        /// The directory.
        dir: HostPath,
        /// Why.
        #[source]
        source: InvalidRecord,
    },
    /// A step on the host failed. The record is as it was before.
    #[error("could not {step} in {dir}")]
    Host {
        /// The directory.
        dir: HostPath,
        /// The step.
        step: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A state directory that this process owns.
#[derive(Debug)]
pub(crate) struct Store {
    dir: HostPath,
    lock: File,
}

impl Drop for Store {
    fn drop(&mut self) {
        // Closing it is not enough while a process that is being started has it still: between fork(2) and execve(2).
        let _ = self.lock.unlock();
    }
}

impl Store {
    /// Makes the directory, which must not exist; its parent must.
    pub(crate) fn create(dir: &HostPath) -> Result<Self, StoreError> {
        let made = DirBuilder::new().mode(0o700).create(dir);
        made.map_err(|source| host(dir, "make the state directory", source))?;
        let store = Self::lock(dir);
        if store.is_err() {
            // It was made above and is empty, but for the lock.
            let _ = fs::remove_file(dir.as_path().join(LOCK));
            let _ = fs::remove_dir(dir);
        }
        store
    }

    /// Takes over a directory whose owner has died, and reads the record. One without a record, as an owner leaves it
    /// that dies before it has begun or when it has cleaned up, is removed.
    pub(crate) fn take_over(dir: &HostPath) -> Result<(Self, SandboxRecord), StoreError> {
        if !dir.as_path().is_dir() {
            return Err(StoreError::NoRecord(dir.clone()));
        }
        let store = Self::lock(dir)?;
        let record = store.read();
        if matches!(record, Err(StoreError::NoRecord(_))) && store.is_bare() {
            store.remove()?;
        }
        Ok((store, record?))
    }

    /// Whether nothing is there but what is made for a record.
    fn is_bare(&self) -> bool {
        let Ok(mut entries) = fs::read_dir(&self.dir) else { return false };
        entries.all(|entry| {
            entry.is_ok_and(|entry| [LOCK, NEW_RECORD].iter().any(|name| entry.file_name() == *name))
        })
    }

    fn lock(dir: &HostPath) -> Result<Self, StoreError> {
        let lock = private().create(true).truncate(false).open(dir.as_path().join(LOCK));
        let lock = lock.map_err(|source| host(dir, "open the lock", source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.clone(), lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Owned(dir.clone())),
            Err(TryLockError::Error(source)) => Err(host(dir, "take the lock", source)),
        }
    }

    /// Reads the record.
    pub(crate) fn read(&self) -> Result<SandboxRecord, StoreError> {
        let opened = OpenOptions::new().read(true).open(self.path(RECORD));
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::NoRecord(self.dir.clone()));
            }
            Err(source) => return Err(host(&self.dir, "open the record", source)),
        };
        let mut text = Vec::new();
        let read = file.take(LONGEST).read_to_end(&mut text);
        read.map_err(|source| host(&self.dir, "read the record", source))?;
        SandboxRecord::parse(&text).map_err(|source| StoreError::Invalid { dir: self.dir.clone(), source })
    }

    /// Replaces the record. On an error the old one is there, unchanged.
    pub(crate) fn write(&self, record: &SandboxRecord) -> Result<(), StoreError> {
        let text =
            record.to_text().map_err(|source| StoreError::Invalid { dir: self.dir.clone(), source })?;
        let written = self.write_new(&text);
        if written.is_err() {
            // It is of no use, and takes room on a disk that may have none left.
            let _ = fs::remove_file(self.path(NEW_RECORD));
        }
        written?;
        let renamed = fs::rename(self.path(NEW_RECORD), self.path(RECORD));
        renamed.map_err(|source| host(&self.dir, "replace the record", source))?;
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|source| host(&self.dir, "sync the directory", source))
    }

    fn write_new(&self, text: &[u8]) -> Result<(), StoreError> {
        let path = self.path(NEW_RECORD);
        let file = private().create(true).truncate(true).open(path);
        let mut file = file.map_err(|source| host(&self.dir, "make the new record", source))?;
        file.write_all(text).map_err(|source| host(&self.dir, "write the new record", source))?;
        file.sync_all().map_err(|source| host(&self.dir, "sync the new record", source))
    }

    /// Removes the record, the lock and the directory. May be called again.
    pub(crate) fn remove(&self) -> Result<(), StoreError> {
        for name in [NEW_RECORD, RECORD, LOCK] {
            let removed = gone(fs::remove_file(self.path(name)));
            removed.map_err(|source| host(&self.dir, "remove a file", source))?;
        }
        gone(fs::remove_dir(&self.dir)).map_err(|source| host(&self.dir, "remove the directory", source))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.as_path().join(name)
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn host(dir: &HostPath, step: &'static str, source: io::Error) -> StoreError {
    StoreError::Host { dir: dir.clone(), step, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::MachineRecord;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};
    use vc_hypervisor::MachineSpec;

    /// Has this test program write records for ever.
    const WRITER: &str = "VC_TEST_RECORD_WRITER";

    fn record(hostname: &str) -> SandboxRecord {
        let path = HostPath::new("/x").unwrap();
        let spec = MachineSpec::new("box".parse().unwrap(), path.clone(), path.clone(), path);
        SandboxRecord::new(MachineRecord::from(&spec), hostname.to_owned(), false)
    }

    fn new_dir() -> (tempfile::TempDir, HostPath) {
        let parent = tempfile::tempdir().unwrap();
        let dir = HostPath::new(parent.path().join("state")).unwrap();
        (parent, dir)
    }

    #[test]
    fn it_is_private_has_one_owner_and_goes_without_a_trace() {
        let (_parent, dir) = new_dir();
        let store = Store::create(&dir).unwrap();
        store.write(&record("one")).unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(dir.as_path().into()), 0o700);
        assert_eq!((mode(store.path(RECORD)), mode(store.path(LOCK))), (0o600, 0o600));
        assert!(matches!(Store::take_over(&dir), Err(StoreError::Owned(_))));
        assert!(Store::create(&dir).is_err(), "it exists");
        drop(store);
        let (store, found) = Store::take_over(&dir).unwrap();
        assert_eq!(found, record("one"));
        store.remove().unwrap();
        store.remove().unwrap();
        assert!(!dir.as_path().exists());
        assert!(matches!(Store::take_over(&dir), Err(StoreError::NoRecord(_))));
    }

    #[test]
    fn the_next_owner_does_not_wait_for_a_process_that_is_being_started() {
        let (_parent, dir) = new_dir();
        let store = Store::create(&dir).unwrap();
        store.write(&record("one")).unwrap();
        // As a fork has it.
        let _copy = store.lock.try_clone().unwrap();
        drop(store);
        assert_eq!(Store::take_over(&dir).unwrap().1, record("one"));
    }

    #[test]
    fn what_an_owner_left_without_a_record_is_removed_and_nothing_else() {
        let (_parent, dir) = new_dir();
        let store = Store::create(&dir).unwrap();
        fs::write(store.path(NEW_RECORD), "{").unwrap();
        drop(store);
        assert!(matches!(Store::take_over(&dir), Err(StoreError::NoRecord(_))));
        assert!(!dir.as_path().exists());
        drop(Store::create(&dir).unwrap());
        fs::write(dir.as_path().join("other"), "").unwrap();
        assert!(matches!(Store::take_over(&dir), Err(StoreError::NoRecord(_))));
        assert!(dir.as_path().join("other").exists());
    }

    #[test]
    fn what_an_owner_left_half_written_is_replaced() {
        let (_parent, dir) = new_dir();
        let store = Store::create(&dir).unwrap();
        store.write(&record("old")).unwrap();
        fs::write(store.path(NEW_RECORD), "{\"version\"").unwrap();
        assert_eq!(store.read().unwrap(), record("old"));
        store.write(&record("new")).unwrap();
        assert_eq!(store.read().unwrap(), record("new"));
        assert!(!store.path(NEW_RECORD).exists());
    }

    /// L-41: the file was truncated and written in place. R-11: the same in Rust.
    #[test]
    fn l41_r11_a_failed_write_costs_nothing() {
        let (_parent, dir) = new_dir();
        let store = Store::create(&dir).unwrap();
        store.write(&record("old")).unwrap();
        fs::create_dir(store.path(NEW_RECORD)).unwrap();
        assert!(matches!(store.write(&record("new")), Err(StoreError::Host { .. })));
        assert_eq!(store.read().unwrap(), record("old"));
    }

    /// Not a test of its own: the child of the one below.
    #[test]
    fn writer() {
        let Some(dir) = std::env::var_os(WRITER) else { return };
        let store = Store::create(&HostPath::new(dir).unwrap()).unwrap();
        for size in (0..).map(|n| n % 16) {
            store.write(&record(&"x".repeat(size << 10))).unwrap();
        }
    }

    #[test]
    fn l41_a_writer_that_is_killed_leaves_the_old_record_or_the_new_one() {
        let (parent, _) = new_dir();
        for round in 0..6 {
            let dir = HostPath::new(parent.path().join(round.to_string())).unwrap();
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "store::tests::writer"])
                .env(WRITER, dir.as_path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            while !dir.as_path().join(RECORD).exists() {
                std::thread::yield_now();
            }
            // Somewhere in its work, each time elsewhere.
            for _ in 0..round * 150 {
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let (_store, found) = Store::take_over(&dir).unwrap();
            assert_eq!(found.to_text().unwrap(), fs::read(dir.as_path().join(RECORD)).unwrap());
        }
    }
}
