//! One at a time in a directory.

use std::fs::File;
use std::path::Path;

use crate::FileError;
use crate::file::make_directory;

/// Makes `directory` if it is not there, and returns when nobody else has its lock. It is released when the file is
/// dropped, and when the process ends, however it ends.
pub(crate) fn lock(directory: &Path) -> Result<File, FileError> {
    make_directory(directory)?;
    let path = directory.join(".lock");
    let file = File::create(&path).map_err(FileError::of("make", &path))?;
    file.lock().map_err(FileError::of("lock", &path))?;
    Ok(file)
}
