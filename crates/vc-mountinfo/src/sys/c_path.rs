//! Paths as C strings, without an allocation for those of usual length.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const ON_STACK: usize = 384;

/// Calls `f` with `path` as a C string.
pub(super) fn with<T>(path: &Path, f: impl FnOnce(&CStr) -> io::Result<T>) -> io::Result<T> {
    let bytes = path.as_os_str().as_bytes();
    let nul_inside = || io::Error::new(io::ErrorKind::InvalidInput, "the path contains a NUL byte");
    if bytes.len() >= ON_STACK {
        return f(&CString::new(bytes).map_err(|_| nul_inside())?);
    }
    let mut buffer = [0_u8; ON_STACK];
    buffer[..bytes.len()].copy_from_slice(bytes);
    f(CStr::from_bytes_with_nul(&buffer[..=bytes.len()]).map_err(|_| nul_inside())?)
}
