//! Debian's packages: found by a stable name, downloaded with apt's own checks, unpacked but never installed.
//!
//! None of this needs root.

mod apt;
mod package;

use std::path::PathBuf;

pub use apt::{download, unpack};
pub use package::{KERNEL, KERNEL_SOURCE, Package, Versioned};

use crate::FileError;
use crate::command::CommandError;

/// A package cannot be had, or is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// This is no Debian, or one without apt.
    #[error("there is no apt-get to take Debian's {0} from")]
    NoApt(&'static str),
    /// Debian has no such package, or has given it another form.
    #[error("apt knows no package behind {0}")]
    NoVersion(&'static str),
    /// A program that handles packages failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// apt said that it has downloaded a package, and has not.
    #[error("apt-get left no file of the package {0}")]
    NoFile(String),
    /// A directory of the package should have one entry of this kind, and has none or several.
    #[error("{} has {found} entries {prefix}*, where one is expected", directory.display())]
    Entries {
        /// The directory.
        directory: PathBuf,
        /// How the entry's name begins.
        prefix: &'static str,
        /// How many there are.
        found: usize,
    },
    /// The system refused something.
    #[error(transparent)]
    File(#[from] FileError),
}
