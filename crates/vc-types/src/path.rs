//! Paths that know on which side of the machine they are valid.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// Why a path was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// The path does not start at the root.
    #[error("{0:?} is not an absolute path")]
    Relative(PathBuf),
    /// The path has a `..` component.
    #[error("{0:?} must not contain `..`")]
    Parent(PathBuf),
    /// The path has a NUL byte.
    #[error("{0:?} must not contain a NUL byte")]
    Nul(PathBuf),
    /// A name to be joined is not exactly one normal path component.
    #[error("{0:?} is not a plain file name")]
    NotAName(String),
}

fn check(path: &Path) -> Result<PathBuf, InvalidPath> {
    if !path.is_absolute() {
        return Err(InvalidPath::Relative(path.into()));
    }
    if path.components().any(|c| c == Component::ParentDir) {
        return Err(InvalidPath::Parent(path.into()));
    }
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(InvalidPath::Nul(path.into()));
    }
    Ok(path.components().collect())
}

/// An absolute path on the host, without `..`. Any bytes but NUL, as the kernel allows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPath(PathBuf);

impl HostPath {
    /// Checks `path`; repeated slashes and `.` components are dropped.
    ///
    /// # Errors
    /// [`InvalidPath`] when the path is relative, or has `..` or a NUL byte.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, InvalidPath> {
        check(path.as_ref()).map(Self)
    }

    /// The path for the host's file system calls.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for HostPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl fmt::Debug for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostPath({:?})", self.0)
    }
}

/// An absolute path in the guest, without `..`. UTF-8, since the agent protocol carries text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestPath(String);

impl GuestPath {
    /// Checks `path`; repeated slashes and `.` components are dropped.
    ///
    /// # Errors
    /// [`InvalidPath`] when the path is relative, or has `..` or a NUL byte.
    pub fn new(path: impl AsRef<str>) -> Result<Self, InvalidPath> {
        let checked = check(Path::new(path.as_ref()))?;
        Ok(Self(checked.to_str().expect("built from a str").to_owned()))
    }

    /// The path one level below this one.
    ///
    /// # Errors
    /// [`InvalidPath::NotAName`] when `name` is not exactly one plain file name.
    pub fn join(&self, name: impl AsRef<str>) -> Result<Self, InvalidPath> {
        let name = name.as_ref();
        let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        if !plain {
            return Err(InvalidPath::NotAName(name.to_owned()));
        }
        Ok(Self(format!("{}/{name}", self.0.trim_end_matches('/'))))
    }

    /// The path as the agent protocol carries it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestPath({:?})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_without_parents_pass() {
        for (given, kept) in [("/", "/"), ("/a//b/./c/", "/a/b/c"), ("/..a/b..", "/..a/b..")] {
            assert_eq!(GuestPath::new(given).unwrap().as_str(), kept);
            assert_eq!(HostPath::new(given).unwrap().as_path(), Path::new(kept));
        }
        assert!(matches!(HostPath::new("a"), Err(InvalidPath::Relative(_))));
        assert!(matches!(GuestPath::new(""), Err(InvalidPath::Relative(_))));
        assert!(matches!(GuestPath::new("/a/../b"), Err(InvalidPath::Parent(_))));
        assert!(matches!(GuestPath::new("/a\0"), Err(InvalidPath::Nul(_))));
    }

    #[test]
    fn join_takes_one_plain_name() {
        assert_eq!(GuestPath::new("/").unwrap().join("a").unwrap().as_str(), "/a");
        for bad in ["", ".", "..", "a/b", "/a", "a\0"] {
            assert!(GuestPath::new("/r").unwrap().join(bad).is_err(), "{bad:?}");
        }
    }
}
