//! A whole mount table, kept.

use std::io::Read;
use std::path::Path;

use crate::mount::Mount;
use crate::mountinfo::{self, MalformedLine, MountInfoReader, ReadError};
use crate::process::{OWN_TABLE, ProcessView};
use crate::walk::walk;

/// The mounts of one table, in its order, and the lines of it that made no sense.
///
/// For one path, a [`Lookup`](crate::Lookup) is faster and follows symlinks; this is for tables of other
/// times and machines, and for questions about all mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountTable<'a> {
    /// The mounts.
    pub mounts: Vec<Mount<'a>>,
    /// What was skipped.
    pub malformed: Vec<MalformedLine>,
}

impl<'a> MountTable<'a> {
    /// Reads the text of a mountinfo file; names without escapes are borrowed from it.
    ///
    /// ```
    /// let table = vc_mountinfo::MountTable::parse(b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\nnonsense\n");
    /// assert_eq!(*table.covering("/etc").unwrap().source, *"/dev/sda1");
    /// assert_eq!(table.malformed.len(), 1);
    /// ```
    pub fn parse(text: &'a [u8]) -> Self {
        let mut table = Self::default();
        for entry in mountinfo::parse(text) {
            match entry {
                Ok(entry) => table.mounts.push(entry.into()),
                Err(line) => table.malformed.push(line),
            }
        }
        table
    }

    /// The visible mount that the absolute `path` is on, symlinks not followed.
    ///
    /// Found by the ids of the parents, not by the order of the lines: the last line of a mount point need not
    /// be the visible one, and a mount on a parent directory hides all below it.
    pub fn covering(&self, path: impl AsRef<Path>) -> Option<&Mount<'a>> {
        walk(&self.mounts, path.as_ref())
    }

    /// The visible mount whose mount point is the absolute `path`, symlinks not followed.
    pub fn at(&self, path: impl AsRef<Path>) -> Option<&Mount<'a>> {
        let path = path.as_ref();
        self.covering(path).filter(|mount| mount.mount_point.as_deref() == Some(path))
    }
}

impl MountTable<'static> {
    /// Reads the caller's table.
    ///
    /// # Errors
    /// [`ReadError::Io`] when `/proc` is not mounted. Malformed lines are kept, not errors.
    pub fn read() -> Result<Self, ReadError> {
        let table = std::fs::File::open(OWN_TABLE).map_err(ReadError::Io)?;
        Self::read_from(MountInfoReader::new(table))
    }

    /// Reads the table of another process.
    ///
    /// # Errors
    /// [`ReadError::Io`] when the process is gone or may not be looked at.
    pub fn of_process(view: &ProcessView) -> Result<Self, ReadError> {
        Self::read_from(view.mountinfo().map_err(ReadError::Io)?)
    }

    /// Reads a table from any stream.
    ///
    /// # Errors
    /// [`ReadError::Io`] when the stream fails.
    pub fn read_from<R: Read>(mut reader: MountInfoReader<R>) -> Result<Self, ReadError> {
        let mut table = Self::default();
        loop {
            match reader.next_entry() {
                Ok(Some(entry)) => table.mounts.push(Mount::from(entry).into_owned()),
                Ok(None) => return Ok(table),
                Err(ReadError::Malformed(line)) => table.malformed.push(line),
                Err(error) => return Err(error),
            }
        }
    }
}
