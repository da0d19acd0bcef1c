//! A container's cgroup (version 2): kill, freeze, count, remove.
//!
//! The files are those of the kernel's `Documentation/admin-guide/cgroup-v2.rst`.

use crate::resources::Limit;
use crate::sys::{signal_process, watch_descriptor};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;
use nix::unistd::Pid;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use vc_types::Deadline;

/// Where the hierarchy is mounted.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";

/// A step on a cgroup that failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file of the cgroup.
    #[error("cannot use {0:?}")]
    File(PathBuf, #[source] std::io::Error),
    /// A limit that the kernel does not take.
    #[error("cannot set {file} to {value:?}: does the kernel have the controller, and can the value be?")]
    Limit {
        /// The file of the cgroup.
        file: String,
        /// What was to be written.
        value: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// Another container's.
    #[error("the cgroup {0:?} exists already")]
    Exists(PathBuf),
    /// The state did not come in time.
    #[error("the processes in {0:?} are still not {1}")]
    Late(PathBuf, &'static str),
}

/// One cgroup, by its directory.
#[derive(Clone, Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// The cgroup at `path` below the root of the hierarchy mounted at `root`.
    pub fn new(root: impl AsRef<Path>, path: &Path) -> Self {
        Self(root.as_ref().join(path.strip_prefix("/").unwrap_or(path)))
    }

    /// Makes the cgroup, and lets it and those above it have every controller that there is.
    ///
    /// # Errors
    /// [`CgroupError::Exists`] for one that is there: sharing it would let one container's end be the
    /// other's. Else the error of mkdir(2).
    pub fn create(&self, root: &Path) -> Result<(), CgroupError> {
        let below = self.0.strip_prefix(root).unwrap_or(&self.0);
        let mut directory = root.to_owned();
        for name in below {
            enable_controllers(&directory);
            directory.push(name);
            match std::fs::create_dir(&directory) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if directory == self.0 {
                        return Err(CgroupError::Exists(directory));
                    }
                }
                result => result.map_err(|error| CgroupError::File(directory.clone(), error))?,
            }
        }
        Ok(())
    }

    /// The cgroup's directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A descriptor of the cgroup's directory.
    ///
    /// # Errors
    /// The error of open(2).
    pub fn open(&self) -> Result<OwnedFd, CgroupError> {
        open(&self.0, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| CgroupError::File(self.0.clone(), errno.into()))
    }

    /// Sets `limits`, in their order.
    ///
    /// # Errors
    /// [`CgroupError::Limit`] names the first that the kernel does not take; those before it are set.
    pub fn limit(&self, limits: &[Limit]) -> Result<(), CgroupError> {
        limits.iter().try_for_each(|Limit { file, value }| {
            // Not `std::fs::write`: that would make a file where there is none.
            let written = std::fs::File::options()
                .write(true)
                .open(self.0.join(file))
                .and_then(|mut open| std::io::Write::write_all(&mut open, value.as_bytes()));
            let failed = |source| CgroupError::Limit { file: file.clone(), value: value.clone(), source };
            written.map_err(failed)
        })
    }

    /// The quota of `cpu.max` in force, in its own form: microseconds, or `max`.
    pub fn quota(&self) -> String {
        let text = std::fs::read_to_string(self.0.join("cpu.max")).unwrap_or_default();
        text.split_ascii_whitespace().next().unwrap_or("max").to_owned()
    }

    /// Waits until the kernel has killed more than `known` processes for want of memory; returns how
    /// many then. `None` once the cgroup is gone, or when it counts no memory.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn next_oom_kill(&self, known: u64) -> Option<u64> {
        let file = File::open(self.0.join("memory.events")).ok()?;
        let events = watch_descriptor(file.into(), Interest::PRIORITY).ok()?;
        let mut buffer = [0; 512];
        loop {
            // Reading is what arms the next event, so an event between here and the wait is kept.
            let length = pread(events.get_ref(), &mut buffer, 0).ok()?;
            let text = String::from_utf8_lossy(&buffer[..length]);
            let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
            if let Some(kills) = kills.filter(|kills| *kills > known) {
                return Some(kills);
            }
            events.ready(Interest::PRIORITY).await.ok()?.clear_ready();
        }
    }

    /// Kills every process of the cgroup and of those below it; none when it is gone.
    ///
    /// # Errors
    /// The error of writing `cgroup.kill`.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        if self.0.exists() { self.write("cgroup.kill", "1") } else { Ok(()) }
    }

    /// Sends the signal of this number to every process of the cgroup and of those below it.
    pub fn signal_all(&self, signal: i32) {
        for directory in self.tree() {
            let pids = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1) {
                // Gone in the meantime is as good as signalled.
                let _ = signal_process(Pid::from_raw(pid), signal);
            }
        }
    }

    /// Waits until no process is left.
    ///
    /// # Errors
    /// [`CgroupError::Late`] once `deadline` has passed.
    pub async fn emptied(&self, deadline: Deadline) -> Result<(), CgroupError> {
        self.await_event("populated 0", "gone", deadline).await
    }

    /// Freezes or thaws all processes, and waits until they are.
    ///
    /// # Errors
    /// [`CgroupError::Late`] once `deadline` has passed.
    pub async fn freeze(&self, frozen: bool, deadline: Deadline) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
        let (event, name) = if frozen { ("frozen 1", "frozen") } else { ("frozen 0", "thawed") };
        let done = self.await_event(event, name, deadline).await;
        if frozen && done.is_err() {
            // What does not stop in time is not to stop later, when nobody expects it any more. The first error counts.
            let _ = self.write("cgroup.freeze", "0");
        }
        done
    }

    /// Removes the cgroup and those below it, which must be empty of processes.
    ///
    /// # Errors
    /// The error of rmdir(2).
    pub fn remove(&self) -> Result<(), CgroupError> {
        for directory in self.tree() {
            match std::fs::remove_dir(&directory) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(CgroupError::File(directory, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `cgroup.events` becomes ready with POLLPRI when one of its lines has changed.
    async fn await_event(
        &self,
        line: &str,
        state: &'static str,
        deadline: Deadline,
    ) -> Result<(), CgroupError> {
        let path = self.0.join("cgroup.events");
        let failed = |error| CgroupError::File(path.clone(), error);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(failed)?,
        };
        let events = watch_descriptor(file.into(), Interest::PRIORITY).map_err(failed)?;
        let mut buffer = [0; 256];
        loop {
            // Reading is what arms the next event, so an event between here and the wait is kept.
            let length = pread(events.get_ref(), &mut buffer, 0).map_err(|errno| failed(errno.into()))?;
            let text = String::from_utf8_lossy(&buffer[..length]);
            if text.lines().any(|found| found == line) {
                return Ok(());
            }
            let ready = tokio::time::timeout(deadline.remaining(), events.ready(Interest::PRIORITY)).await;
            let mut ready = ready.map_err(|_| CgroupError::Late(self.0.clone(), state))?.map_err(failed)?;
            ready.clear_ready();
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), CgroupError> {
        let path = self.0.join(name);
        std::fs::write(&path, text).map_err(|error| CgroupError::File(path, error))
    }

    /// This cgroup and all below it, innermost first.
    fn tree(&self) -> Vec<PathBuf> {
        let mut directories = vec![self.0.clone()];
        let mut next = 0;
        while let Some(directory) = directories.get(next) {
            let children = std::fs::read_dir(directory).into_iter().flatten().flatten();
            let children: Vec<_> = children.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
            directories.extend(children);
            next += 1;
        }
        directories.reverse();
        directories
    }
}

/// Lets those below `directory` have every controller that there is. One by one: of several, the kernel
/// takes all or none.
pub(crate) fn enable_controllers(directory: &Path) {
    let controllers = std::fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    let enabled = std::fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap_or_default();
    let is_enabled = |name: &str| enabled.split_ascii_whitespace().any(|other| other == name);
    for controller in controllers.split_ascii_whitespace().filter(|name| !is_enabled(name)) {
        if let Err(error) = std::fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"))
        {
            tracing::warn!(controller, ?directory, %error, "containers cannot have this controller");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    #[test]
    fn a_cgroup_is_nobody_elses() {
        let root = tempfile::tempdir().unwrap();
        let cgroup = Cgroup::new(root.path(), Path::new("/vc/a"));
        cgroup.create(root.path()).unwrap();
        assert!(
            matches!(cgroup.create(root.path()), Err(CgroupError::Exists(path)) if path == cgroup.path())
        );
        Cgroup::new(root.path(), Path::new("/vc/b")).create(root.path()).unwrap();
    }

    #[test]
    fn a_limit_without_its_controller_is_an_error_and_makes_no_file() {
        let root = tempfile::tempdir().unwrap();
        let cgroup = Cgroup::new(root.path(), Path::new("/a"));
        cgroup.create(root.path()).unwrap();
        write(cgroup.path().join("pids.max"), "max\n").unwrap();
        let limit = |file: &str| Limit { file: file.into(), value: "7".into() };
        let error = cgroup.limit(&[limit("pids.max"), limit("memory.max")]).unwrap_err();
        assert!(matches!(error, CgroupError::Limit { file, .. } if file == "memory.max"));
        let written = std::fs::read_to_string(cgroup.path().join("pids.max")).unwrap();
        assert!(written.starts_with('7') && !cgroup.path().join("memory.max").exists());
    }

    #[test]
    fn a_tree_goes_innermost_first_and_a_missing_one_is_gone_already() {
        let root = tempfile::tempdir().unwrap();
        let cgroup = Cgroup::new(root.path(), Path::new("/vc/a"));
        create_dir_all(root.path().join("vc/a/b/c")).unwrap();
        create_dir_all(root.path().join("vc/a/d")).unwrap();
        cgroup.remove().unwrap();
        assert!(!root.path().join("vc/a").exists() && root.path().join("vc").exists());
        cgroup.remove().unwrap();
        cgroup.kill_all().unwrap();
    }
}
