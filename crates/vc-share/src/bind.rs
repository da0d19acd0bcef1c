//! What is bound into a shared directory, and by which name.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use vc_types::HostPath;

/// Not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name in a shared directory: one or two file names of at most 255 bytes, neither `.` nor `..`"
)]
pub struct InvalidShareName(String);

/// A name in a shared directory: one file name, or two with a slash between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareName(String);

impl ShareName {
    /// The directory that it is in, if it is not the shared directory itself, and the last name.
    pub(crate) fn parts(&self) -> (Option<&str>, &str) {
        match self.0.split_once('/') {
            Some((directory, name)) => (Some(directory), name),
            None => (None, &self.0),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<Path> for ShareName {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl fmt::Display for ShareName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ShareName {
    type Err = InvalidShareName;

    fn from_str(text: &str) -> Result<Self, InvalidShareName> {
        let is_plain =
            |name: &str| !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.contains('\0');
        if text.split('/').count() <= 2 && text.split('/').all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidShareName(text.to_owned()))
        }
    }
}

/// A file or directory of the host that is to be seen in a shared directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// By which name.
    pub name: ShareName,
    /// Which, by a path without links: where another guest can write, it could put one since it was looked at.
    pub source: HostPath,
    /// Whether nobody can write by that name, mounts below it included.
    pub read_only: bool,
    /// Whether mounts below it come along.
    pub recursive: bool,
    /// Whether mounts that the host makes or takes away below it later do so here too.
    pub follow: bool,
}

impl Bind {
    /// `source` and all mounts below it, for reading and writing.
    pub fn new(name: ShareName, source: HostPath) -> Self {
        Self { name, source, read_only: false, recursive: true, follow: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        for good in ["a", "web-0-data", "watchable/a", "...", "a b"] {
            assert_eq!(good.parse::<ShareName>().unwrap().as_str(), good);
        }
        let long = "x".repeat(256);
        for bad in ["", ".", "..", "/a", "a/", "a/..", "../a", "a//b", "a/b/c", "a\0b", &long] {
            assert!(bad.parse::<ShareName>().is_err(), "{bad:?}");
        }
    }
}
