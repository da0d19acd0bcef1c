//! The directory with the state of every container: one directory each, with a lock, a record, a socket.
//!
//! A directory that is called like a container is complete: it is made under another name, gets its lock and
//! its record, and is renamed then. Its lock is held as long as somebody owns the container; whoever gets
//! it knows that nobody does.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;
use vc_types::ContainerId;

use super::record::Record;
use crate::failure::Failure;

/// The directory of all containers.
#[derive(Clone, Debug)]
pub(crate) struct Root(PathBuf);

/// The directory of one container.
#[derive(Clone, Debug)]
pub(crate) struct ContainerDir(PathBuf);

/// Held by the one process that may change what is in a container's directory.
#[derive(Debug)]
pub(crate) struct Lock(File);

/// What the names of machines' directories begin with.
const MACHINE: &str = ".m-";

/// FNV-1a, which is the same in every version of `vc`. Of two containers whose names have the same one, the second is
/// refused, as its directory exists.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Root {
    /// What `--root` names, or the default. If it is there, it must be this user's alone, for each command: who can write to
    /// it owns every container, and says what is run when one ends.
    pub(crate) fn of(option: Option<&Path>) -> Result<Self, Failure> {
        let path = option.map_or_else(default_root, Path::to_owned);
        let step = || format!("use the directory {}", path.display());
        let root = Self(std::path::absolute(&path).map_err(|error| Failure::step(step(), error))?);
        root.check()?;
        Ok(root)
    }

    /// Makes the directory if need be.
    pub(crate) fn make(&self) -> Result<(), Failure> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.map_err(|error| Failure::step(format!("make the directory {}", self.0.display()), error))?;
        self.check()
    }

    fn check(&self) -> Result<(), Failure> {
        let user = geteuid().as_raw();
        // Neither may a link be somebody else's.
        let metas = fs::symlink_metadata(&self.0).and_then(|link| Ok([link, fs::metadata(&self.0)?]));
        match metas {
            Ok([link, meta]) if link.uid() == user && meta.uid() == user && meta.mode() & 0o022 == 0 => {
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(_) => Err(Failure::message(format!(
                "the directory {} belongs to somebody else or can be written by others; name another with --root",
                self.0.display()
            ))),
            Err(error) => Err(Failure::step(format!("use the directory {}", self.0.display()), error)),
        }
    }

    /// Makes the directory of a container, with its lock held and its record written.
    pub(crate) fn reserve(&self, record: &Record) -> Result<(ContainerDir, Lock), Failure> {
        let new = ContainerDir(self.0.join(format!(".{}-{}", record.id, std::process::id())));
        let step = || format!("make the state of container {}", record.id);
        let failed = |error: io::Error| Failure::step(step(), error);
        DirBuilder::new().mode(0o700).create(&new.0).map_err(failed)?;
        let reserved = self.fill(&new, record);
        if reserved.is_err() {
            // Nobody else knows it; the first error is the one that counts.
            let _ = fs::remove_dir_all(&new.0);
        }
        reserved
    }

    fn fill(&self, new: &ContainerDir, record: &Record) -> Result<(ContainerDir, Lock), Failure> {
        let failed =
            |error: io::Error| Failure::step(format!("make the state of container {}", record.id), error);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(new.lock_file()).map_err(failed)?;
        let lock = new.try_lock().map_err(failed)?.expect("nobody else knows the file");
        record.write(new)?;
        let dir = ContainerDir(self.0.join(record.id.as_str()));
        match renameat_with(CWD, &new.0, CWD, &dir.0, RenameFlags::NOREPLACE) {
            Ok(()) => Ok((dir, lock)),
            Err(Errno::EXIST) => Err(Failure::message(format!(
                "container {} exists already; remove it with `vc delete`, or choose another name",
                record.id
            ))),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// The directory of a container that there is.
    pub(crate) fn find(&self, id: &ContainerId) -> Option<ContainerDir> {
        let dir = self.0.join(id.as_str());
        dir.is_dir().then_some(ContainerDir(dir))
    }

    /// The directory of a container, or that there is none.
    pub(crate) fn get(&self, id: &ContainerId) -> Result<ContainerDir, Failure> {
        self.find(id).ok_or_else(|| Failure::message(format!("container {id} does not exist")))
    }

    /// The names of all containers, sorted.
    pub(crate) fn ids(&self) -> Result<Vec<ContainerId>, Failure> {
        let mut ids: Vec<ContainerId> = self.names()?.iter().filter_map(|name| name.parse().ok()).collect();
        ids.sort();
        Ok(ids)
    }

    /// The directories that are being made or removed, or were when whoever did so was killed.
    pub(crate) fn unfinished(&self) -> Result<Vec<PathBuf>, Failure> {
        let names =
            self.names()?.into_iter().filter(|name| name.starts_with('.') && !name.starts_with(MACHINE));
        Ok(names.map(|name| self.0.join(name)).collect())
    }

    fn names(&self) -> Result<Vec<String>, Failure> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Failure::step(format!("read {}", self.0.display()), error)),
        };
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }
}

impl ContainerDir {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn record_file(&self) -> PathBuf {
        self.0.join("state.json")
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.0.join("owner.log")
    }

    /// Where the machine's files go: beside, under a short name of its own, since the path of a socket may have 107
    /// bytes (unix(7)) and the name of a container 64 and more.
    pub(crate) fn machine_dir(&self) -> PathBuf {
        let id = self.0.file_name().unwrap_or_default();
        self.0.with_file_name(format!("{MACHINE}{:016x}", hash(id.as_encoded_bytes())))
    }

    fn lock_file(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Gives the name free and the directory another, under which nobody looks for a container.
    pub(crate) fn retire(self) -> io::Result<PathBuf> {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let gone = self.0.with_file_name(format!(".{name}-{}-gone", std::process::id()));
        fs::rename(&self.0, &gone)?;
        Ok(gone)
    }

    /// The directory that an owner was given.
    pub(crate) fn of_owner(path: PathBuf) -> Self {
        Self(path)
    }

    /// `None` when somebody owns the container.
    ///
    /// # Errors
    /// When there is no such container any more, or the kernel refuses.
    pub(crate) fn try_lock(&self) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new().write(true).open(self.lock_file())?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Lock {
    /// Of a file that [`Lock::into_file`] gave.
    pub(crate) fn held(file: File) -> Self {
        Self(file)
    }

    /// The file, to be handed on: it is locked as long as anybody has it open.
    pub(crate) fn into_file(self) -> File {
        self.0
    }
}

/// runc's and crun's rule: a user's own directory, unless root of the whole host asks.
fn default_root() -> PathBuf {
    let user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    match user {
        Some(dir) if !geteuid().is_root() || in_user_namespace() => dir.join("vc"),
        _ if geteuid().is_root() => "/run/vc".into(),
        _ => std::env::temp_dir().join(format!("vc-{}", geteuid().as_raw())),
    }
}

/// Whether root here is not root of the host: the first user namespace maps every number to itself
/// (user_namespaces(7)).
fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().ne(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record::new(id.parse().unwrap(), "/bundle".into(), &oci_spec::runtime::Spec::default())
    }

    #[test]
    fn a_name_is_given_once_and_locked_from_the_start() {
        let temp = tempfile::tempdir().unwrap();
        let root = Root(temp.path().join("state"));
        root.make().unwrap();
        let (dir, lock) = root.reserve(&record("a")).unwrap();
        assert!(dir.try_lock().unwrap().is_none(), "it is owned");
        assert_eq!(Record::read(&dir).unwrap().id.as_str(), "a");
        root.reserve(&record("a")).unwrap_err();
        assert_eq!(fs::read_dir(&root.0).unwrap().count(), 1, "a refusal leaves nothing");
        drop(lock);
        assert!(dir.try_lock().unwrap().is_some());
        assert_eq!(root.ids().unwrap(), ["a".parse().unwrap()]);
    }

    #[test]
    fn the_directory_of_a_machine_is_short_and_its_own() {
        let dir = |id: &str| ContainerDir(Path::new("/run/user/1000/vc").join(id)).machine_dir();
        let long = dir(&"f".repeat(64));
        assert!(long.as_os_str().len() < 40 && long.starts_with("/run/user/1000/vc"), "{}", long.display());
        assert_ne!(long, dir(&"e".repeat(64)));
        // FNV's own test vector.
        assert_eq!(dir("foobar").file_name().unwrap(), ".m-85944171f73967e8");
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let root = Root(temp.path().join("state"));
        DirBuilder::new().create(&root.0).unwrap();
        Root::of(Some(&root.0)).unwrap();
        fs::set_permissions(&root.0, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        root.make().unwrap_err();
        Root::of(Some(&root.0)).unwrap_err();
        Root::of(Some(&temp.path().join("none"))).unwrap();
    }
}
