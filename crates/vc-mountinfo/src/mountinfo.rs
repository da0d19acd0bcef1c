//! The text of `/proc/<pid>/mountinfo`, parsed in place.
//!
//! The format is that of proc_pid_mountinfo(5):
//!
//! ```text
//! 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//! id │  │    │     │     mount      optional │ │    │         superblock options
//!    parent  root  mount options    fields   │ │    source
//!       device     point                     │ filesystem type
//!                                            separator
//! ```
//!
//! Fields are split at single spaces and at nothing else: an empty source shows as two spaces in a row,
//! and names may contain any other byte.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::Path;

use crate::DeviceNumber;
use crate::bytes::{lines, os_str, path};
use crate::device::{self, number};
use crate::escape::unescape;
use crate::sys::find_byte;

mod reader;

pub use reader::{MountInfoReader, ReadError};

/// Parses a whole table; the entries borrow from `text`.
///
/// A malformed line is an `Err` item and does not end the iteration.
pub fn parse(text: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, MalformedLine>> {
    lines(text).map(Entry::parse)
}

/// A line that is not of the form the kernel documents.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mountinfo line {:?} has no {missing}", self.line.escape_ascii().to_string())]
pub struct MalformedLine {
    /// The first field that is missing or unreadable.
    pub missing: &'static str,
    /// The line, without its newline.
    pub line: Box<[u8]>,
}

/// One line of mountinfo.
///
/// Names and options are as the kernel wrote them, with octal escapes; the methods decode them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The mount's id; used again for another mount after an unmount.
    pub id: u32,
    /// The id of the mount this one is on; possibly not listed.
    pub parent_id: u32,
    /// What `st_dev` is for files of this filesystem (not so on btrfs and other multi-device ones).
    pub device: DeviceNumber,
    /// The path within the filesystem that is mounted; `/` unless it is a bind of something deeper.
    pub raw_root: &'a [u8],
    /// Where it is mounted, from the process's root.
    pub raw_mount_point: &'a [u8],
    /// The options of this mount alone, such as `rw,noatime`.
    pub mount_options: &'a [u8],
    /// Propagation, such as `shared:1 master:2`; often empty.
    pub optional_fields: &'a [u8],
    /// The type, such as `erofs` or `fuse.sshfs`.
    pub raw_fs_type: &'a [u8],
    /// The source, whatever the mounter gave; possibly empty.
    pub raw_source: &'a [u8],
    /// The options of the filesystem, such as `ro,user_xattr`.
    pub super_options: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Parses one line, given without its newline.
    ///
    /// # Errors
    /// [`MalformedLine`] names the first field that is missing or unreadable.
    pub fn parse(line: &'a [u8]) -> Result<Self, MalformedLine> {
        let malformed = |missing| MalformedLine { missing, line: line.into() };
        let mut fields = Fields(Some(line));
        let id = fields.next().and_then(number).ok_or_else(|| malformed("mount id"))?;
        let parent_id = fields.next().and_then(number).ok_or_else(|| malformed("parent id"))?;
        let device = fields.next().and_then(device::parse).ok_or_else(|| malformed("device number"))?;
        let raw_root = fields.next().filter(|f| !f.is_empty()).ok_or_else(|| malformed("root"))?;
        let raw_mount_point =
            fields.next().filter(|f| !f.is_empty()).ok_or_else(|| malformed("mount point"))?;
        let mount_options = fields.next().ok_or_else(|| malformed("mount options"))?;
        let optional_fields = fields.up_to_separator().ok_or_else(|| malformed("separator"))?;
        let raw_fs_type = fields.next().ok_or_else(|| malformed("filesystem type"))?;
        let raw_source = fields.next().ok_or_else(|| malformed("source"))?;
        // The last field is whatever is left, since some filesystems print blanks unescaped.
        let super_options = fields.0.ok_or_else(|| malformed("superblock options"))?;
        Ok(Self {
            id,
            parent_id,
            device,
            raw_root,
            raw_mount_point,
            mount_options,
            optional_fields,
            raw_fs_type,
            raw_source,
            super_options,
        })
    }

    /// The path within the filesystem that is mounted, decoded.
    ///
    /// Without a leading slash for namespaces (`net:[4026531840]`); ends in `//deleted` when what was bound is gone.
    pub fn root(&self) -> Cow<'a, Path> {
        path(unescape(self.raw_root))
    }

    /// Where it is mounted, decoded.
    pub fn mount_point(&self) -> Cow<'a, Path> {
        path(unescape(self.raw_mount_point))
    }

    /// The filesystem's type, decoded.
    pub fn fs_type(&self) -> Cow<'a, OsStr> {
        os_str(unescape(self.raw_fs_type))
    }

    /// The source, decoded. A mount made without a source shows as `none`.
    pub fn source(&self) -> Cow<'a, OsStr> {
        os_str(unescape(self.raw_source))
    }

    /// Whether nothing can be written through this mount: the mount or its filesystem is read-only.
    pub fn is_read_only(&self) -> bool {
        let first = |options: &'a [u8]| options.split(|b| *b == b',').next() == Some(b"ro");
        first(self.mount_options) || first(self.super_options)
    }

    /// The options of the filesystem proper, still escaped: the superblock options without the flags that
    /// the kernel puts before them (`ro`, `sync`, …).
    pub fn fs_options(&self) -> &'a [u8] {
        const FLAGS: [&[u8]; 6] = [b"ro", b"rw", b"sync", b"dirsync", b"mand", b"lazytime"];
        let mut rest = self.super_options;
        loop {
            let end = find_byte(b',', rest).unwrap_or(rest.len());
            if !FLAGS.contains(&&rest[..end]) {
                return rest;
            }
            rest = rest.get(end + 1..).unwrap_or_default();
        }
    }
}

/// The fields of a line, split at single spaces; `None` once the last was taken.
struct Fields<'a>(Option<&'a [u8]>);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.0?;
        // Fields are short: a simple loop beats a call to memchr.
        let Some(end) = line.iter().position(|b| *b == b' ') else {
            self.0 = None;
            return Some(line);
        };
        self.0 = Some(&line[end + 1..]);
        Some(&line[..end])
    }

    /// Everything before the first field that is a lone dash.
    fn up_to_separator(&mut self) -> Option<&'a [u8]> {
        let start = self.0?;
        loop {
            let here = self.0?;
            if self.next()? == b"-" {
                let length = start.len() - here.len();
                return Some(&start[..length.saturating_sub(1)]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
