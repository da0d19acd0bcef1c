//! The sandbox's directory on the host: private, and gone with the sandbox.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;

use vc_types::HostPath;

/// A directory of mode 0700 that did not exist before. Dropping it removes it if it is empty.
#[derive(Debug)]
pub(crate) struct RuntimeDir {
    path: HostPath,
    removed: bool,
}

impl RuntimeDir {
    /// Creates the directory; its parent must exist.
    pub(crate) fn create(path: &HostPath) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(path)?;
        Ok(Self { path: path.clone(), removed: false })
    }

    /// Takes over a directory that another process created.
    pub(crate) fn adopt(path: &HostPath) -> Self {
        Self { path: path.clone(), removed: false }
    }

    /// Leaves it as it is when this value is dropped.
    pub(crate) fn let_go(mut self) {
        self.removed = true;
    }

    pub(crate) fn path(&self) -> &HostPath {
        &self.path
    }

    /// Removes it. Only what this crate's ports made is expected in it, and they have removed that.
    pub(crate) fn remove(&mut self) -> io::Result<()> {
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.removed = true,
        }
        Ok(())
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if !self.removed
            && let Err(error) = self.remove()
        {
            tracing::warn!(path = %self.path, %error, "a sandbox's directory is left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_private_and_never_shared() {
        let parent = tempfile::tempdir().unwrap();
        let path = HostPath::new(parent.path().join("box")).unwrap();
        let dir = RuntimeDir::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(RuntimeDir::create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        drop(dir);
        assert!(!path.as_path().exists());
    }
}
