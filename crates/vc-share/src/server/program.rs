//! Where the programs are.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::ServerError;

/// Where distributions put virtiofsd: the Rust one, and last the one that came with QEMU before 8.0.
const PLACES: [&str; 3] = ["/usr/libexec/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/qemu/virtiofsd"];

/// The virtiofsd of this host: the first in `PATH`, or where distributions put it.
///
/// # Errors
/// [`ServerError::NotFound`].
pub fn find_virtiofsd() -> Result<PathBuf, ServerError> {
    let places = PLACES.map(PathBuf::from);
    in_path("virtiofsd").chain(places).find(is_program).ok_or(ServerError::NotFound)
}

/// The nydusd of this host: the first in `PATH`.
///
/// # Errors
/// [`ServerError::NoNydusd`].
pub fn find_nydusd() -> Result<PathBuf, ServerError> {
    in_path("nydusd").find(is_program).ok_or(ServerError::NoNydusd)
}

fn in_path(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    directories.into_iter().map(move |directory| directory.join(name))
}

#[expect(clippy::ptr_arg, reason = "as Iterator::find has it")]
fn is_program(path: &PathBuf) -> bool {
    path.metadata().is_ok_and(|stat| stat.is_file() && stat.permissions().mode() & 0o111 != 0)
}
