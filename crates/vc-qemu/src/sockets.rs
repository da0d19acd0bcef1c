//! Sockets on the host that end with their machine, and not a moment later.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use vc_hypervisor::StopError;
use vc_types::HostPath;

/// Sockets of a machine. They are removed when this value is dropped, unless they were before.
///
/// Once only: whatever has their names later is that of the next machine in the same directory.
#[derive(Debug)]
pub(crate) struct Sockets {
    paths: Vec<HostPath>,
    /// The directory that was made for them, if one was.
    dir: Option<HostPath>,
    /// Whether they are there and this value's to remove.
    is_owner: AtomicBool,
}

impl Sockets {
    /// No sockets yet, with the directory that was made for them.
    pub(crate) fn new(dir: Option<HostPath>) -> Self {
        Self { paths: Vec::new(), dir, is_owner: AtomicBool::new(true) }
    }

    /// From now on this one goes with the others.
    pub(crate) fn add(&mut self, path: HostPath) {
        self.paths.push(path);
    }

    /// The directory that was made for them, if one was.
    pub(crate) fn dir(&self) -> Option<&HostPath> {
        self.dir.as_ref()
    }

    /// Leaves them where they are, for the next owner.
    pub(crate) fn let_go(&self) {
        self.is_owner.store(false, Ordering::Relaxed);
    }

    /// Removes them, if they were not before. After an error they can be removed again.
    pub(crate) fn remove(&self) -> Result<(), StopError> {
        if !self.is_owner.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let files = self.paths.iter().try_for_each(|path| removed(path, fs::remove_file(path)));
        let all = files.and_then(|()| match &self.dir {
            Some(dir) => removed(dir, fs::remove_dir_all(dir)),
            None => Ok(()),
        });
        self.is_owner.store(all.is_err(), Ordering::Relaxed);
        all
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, "a dropped machine left a file");
        }
    }
}

fn removed(path: &HostPath, result: io::Result<()>) -> Result<(), StopError> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(StopError::Leftover { path: path.clone(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_somebody_elses_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = HostPath::new(dir.path().join("x.sock")).unwrap();
        let mut sockets = Sockets::new(None);
        sockets.add(path.clone());
        fs::write(&path, "").unwrap();
        sockets.remove().unwrap();
        assert!(!path.as_path().exists());
        fs::write(&path, "").unwrap();
        sockets.remove().unwrap();
        drop(sockets);
        assert!(path.as_path().exists(), "it is that of the next machine");
    }

    #[test]
    fn what_was_let_go_stays_and_the_rest_goes_with_the_value() {
        let outer = tempfile::tempdir().unwrap();
        let dir = HostPath::new(outer.path().join("vsock")).unwrap();
        let path = HostPath::new(dir.as_path().join("x.sock")).unwrap();
        for is_let_go in [true, false] {
            fs::create_dir_all(&dir).unwrap();
            let mut sockets = Sockets::new(Some(dir.clone()));
            fs::write(&path, "").unwrap();
            sockets.add(path.clone());
            if is_let_go {
                sockets.let_go();
            }
            drop(sockets);
            assert_eq!((path.as_path().exists(), dir.as_path().exists()), (is_let_go, is_let_go));
        }
    }
}
