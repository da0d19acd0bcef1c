//! What fails with a file, with its path.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The system refused something with a file or a directory.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} {}", path.display())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    pub(crate) fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.to_owned(), source }
    }

    /// The file or the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(FileError::of("read", path))
}

pub(crate) fn write(path: &Path, data: impl AsRef<[u8]>) -> Result<(), FileError> {
    fs::write(path, data).map_err(FileError::of("write", path))
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(FileError::of("put in place", to))
}

pub(crate) fn make_directory(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(FileError::of("make the directory", path))
}

/// What is in a directory.
pub(crate) fn list(directory: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries =
        fs::read_dir(directory).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    entries.map_err(FileError::of("list", directory))
}

/// How the names of directories begin that are only there for a while.
pub(crate) const TEMPORARY: &str = ".unfinished-";

/// A directory that goes when it is dropped.
pub(crate) fn temporary_in(directory: &Path) -> Result<TempDir, FileError> {
    TempDir::with_prefix_in(TEMPORARY, directory).map_err(FileError::of("make a directory in", directory))
}
